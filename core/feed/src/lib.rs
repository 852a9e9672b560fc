//! One hop of the delivery tree.
