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
    /// Where its quota has no room for what was planned: then replicas and disks stay as they are.
    pub wait: Option<Wait>,
}

/// Why replicas and disks stay as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// What is missing, in a sentence.
    pub message: String,
    /// What the StatefulSet that is there was built from: it is as it should be.
    pub built_from: Option<String>,
}

impl Course {
    /// How many replicas there should be.
    pub fn replicas(&self) -> i32 {
        match self {
            Self::Keep(children) => children.shape.replicas,
            Self::Leave | Self::Remove => 0,
        }
    }

    /// Why replicas and disks stay as they are, if they do.
    pub fn wait(&self) -> Option<&Wait> {
        match self {
            Self::Keep(children) => children.wait.as_ref(),
            Self::Leave | Self::Remove => None,
        }
    }

    /// The hash of the StatefulSet as it should be.
    pub fn stateful_set(&self) -> Option<&str> {
        match self.wait() {
            Some(wait) => wait.built_from.as_deref(),
            None => self.built(ChildKind::StatefulSet),
        }
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
