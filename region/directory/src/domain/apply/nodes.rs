use super::{Applied, no_region};
use crate::domain::{NodeAddress, RegionId, Rejection, State};

/// More nodes than that are refused: the state has to stay small.
const NODES_MAX: usize = 64;

impl State {
    pub(super) fn set_nodes(&mut self, region: RegionId, nodes: &[NodeAddress]) -> Result<Applied, Rejection> {
        let found = self.regions.get_mut(&region).ok_or_else(|| no_region(region))?;
        if nodes.len() > NODES_MAX {
            let count = nodes.len();
            return Err(Rejection::Refused(format!("{count} nodes are more than {NODES_MAX}")));
        }
        let mut nodes = nodes.to_vec();
        nodes.sort_by(|one, other| one.id.cmp(&other.id));
        if let Some((_, twice)) = nodes
            .iter()
            .zip(nodes.iter().skip(1))
            .find(|(one, other)| one.id == other.id)
        {
            return Err(Rejection::Refused(format!("node {} is named twice", twice.id)));
        }
        if found.nodes == nodes {
            return Ok(Applied::default());
        }
        found.nodes = nodes;
        Ok(Applied::changed())
    }
}
