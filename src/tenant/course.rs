//! What a plan comes to: which children there should be.

use super::build::{Child, ChildKind, Shape};

/// What there should be.
#[derive(Clone, Debug, PartialEq)]
pub enum Course {
    /// These children, in this order.
    Keep {
        /// How many replicas, and whether they serve.
        shape: Shape,
        /// All of them.
        children: Vec<Child>,
    },
    /// Nothing is written: the namespace is going and takes the children along.
    Leave,
    /// No children: the last record is shown.
    Remove,
}

impl Course {
    /// How many replicas there should be.
    pub fn replicas(&self) -> i32 {
        match self {
            Self::Keep { shape, .. } => shape.replicas,
            Self::Leave | Self::Remove => 0,
        }
    }

    /// The hash of the StatefulSet as it should be.
    pub fn stateful_set(&self) -> Option<&str> {
        match self {
            Self::Keep { children, .. } => {
                let set = children.iter().find(|child| child.kind == ChildKind::StatefulSet)?;
                Some(&set.built_from)
            }
            Self::Leave | Self::Remove => None,
        }
    }
}
