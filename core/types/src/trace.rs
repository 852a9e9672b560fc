//! W3C trace context across the places where a call stack ends: the slot's queue, its log, the feed.
//!
//! <https://www.w3.org/TR/trace-context/#traceparent-header>

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The `traceparent` of the current span; empty when it is not sampled, so that the hot path carries nothing.
#[must_use]
pub fn current() -> String {
    of(&Span::current())
}

/// The `traceparent` of `span`; empty when it is not sampled.
#[must_use]
pub fn of(span: &Span) -> String {
    if span.is_none() {
        return String::new();
    }
    let context = span.context();
    let context = context.span().span_context().clone();
    if !context.is_valid() || !context.is_sampled() {
        return String::new();
    }
    format!(
        "00-{}-{}-{:02x}",
        context.trace_id(),
        context.span_id(),
        context.trace_flags().to_u8()
    )
}

/// Makes the span a child of `traceparent`. Empty or malformed text leaves the span as it is.
pub fn continue_from(span: &Span, traceparent: &str) {
    if let Some(context) = parse(traceparent) {
        let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(context));
    }
}

fn parse(traceparent: &str) -> Option<SpanContext> {
    let mut parts = traceparent.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if version.len() != 2 || version == "ff" || trace.len() != 32 || span.len() != 16 {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        flags,
        true,
        TraceState::default(),
    );
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_and_nonsense_is_not() {
        let context = parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        assert!(context.is_sampled());
        for wrong in [
            "",
            "00",
            "00-0-0-0",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert!(parse(wrong).is_none(), "{wrong:?}");
        }
    }
}
