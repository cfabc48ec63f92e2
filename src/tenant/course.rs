//! What a plan comes to: which children there should be.

use super::build::{Child, ChildKind, Shape};

/// What there should be.
#[derive(Clone, Debug, PartialEq)]
pub enum Course {
    /// These children.
    Keep(Children),
    /// Nothing is written: the namespace is going and takes the children along, or they are to be left to themselves.
    Leave,
    /// No children: the last record is shown.
    Remove,
}

/// The children that there should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Children {
    /// How many replicas, and whether they serve.
    pub shape: Shape,
    /// All of them, in the order of creation.
    pub all: Vec<Child>,
    /// Whether one that is not there is made. Not for an object on its way out: whoever deletes with
    /// `--cascade=foreground` has the garbage collector take the children while Berth still drains.
    pub make_missing: bool,
}

impl Course {
    /// How many replicas there should be.
    pub fn replicas(&self) -> i32 {
        match self {
            Self::Keep(children) => children.shape.replicas,
            Self::Leave | Self::Remove => 0,
        }
    }

    /// The hash of the StatefulSet as it should be.
    pub fn stateful_set(&self) -> Option<&str> {
        self.built(ChildKind::StatefulSet)
    }

    /// The hash of the Service that clients use, as it should be.
    pub fn service(&self) -> Option<&str> {
        self.built(ChildKind::Service)
    }

    /// The hash of the first child of a kind.
    fn built(&self, kind: ChildKind) -> Option<&str> {
        match self {
            Self::Keep(children) => Some(&children.all.iter().find(|child| child.kind == kind)?.built_from),
            Self::Leave | Self::Remove => None,
        }
    }
}
