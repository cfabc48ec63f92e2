//! This process's memory of its mark, against the database's (rule 5).

use std::sync::atomic::Ordering;

use super::{
    super::{
        batch::Marks,
        failure::Failure,
        writers::{self, Mark},
    },
    Writer,
};

impl Writer {
    /// After a lost answer: did the last COMMIT arrive?
    pub(super) async fn settle(&mut self) -> Result<(), Failure> {
        match self.marks {
            Some(Marks { attempted: Some(_), .. }) => self.settle_anew().await,
            _ => Ok(()),
        }
    }

    /// Compares what the database knows of this writer with what the writer does. Where neither agrees with what was
    /// acknowledged nor with what was attempted, the database was restored or failed over: the writer goes on from what
    /// it found, and whoever has the spool's tail is told to bring it again (rule 5).
    pub(super) async fn settle_anew(&mut self) -> Result<(), Failure> {
        let found = writers::register(&self.way.writing_pool(), &self.name).await?;
        if let Some(Marks { known, attempted }) = self.marks
            && found != known
            && Some(found) != attempted
        {
            self.rewound(known, found);
        }
        self.marks = Some(Marks { known: found, attempted: None });
        Ok(())
    }

    fn rewound(&self, known: Mark, found: Mark) {
        let error = writers::rewound(&self.name, known, found.acknowledged);
        tracing::warn!(error = error.explain(), "what the spool still has is brought again");
        self.counters.rewinds.fetch_add(1, Ordering::Relaxed);
        self.rewinds.send_modify(|count| *count += 1);
    }
}
