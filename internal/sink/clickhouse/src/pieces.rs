//! A batch with so many values that were not sent that they are read, and written, piece by piece: see
//! [`toast`](crate::toast).

use crate::preparer::Preparer;
use crate::write::ClickHouseWrite;
use async_trait::async_trait;
use replicator_sink::{SinkError, Write};
use replicator_types::Batch;
use std::sync::Arc;
use tokio::sync::Mutex;

pub(crate) struct PiecesWrite {
    preparer: Arc<Mutex<Preparer>>,
    batch: Arc<Batch>,
    /// The piece that is sent.
    piece: Option<ClickHouseWrite>,
    /// The first change behind it.
    next: usize,
    held_bytes: usize,
}

impl PiecesWrite {
    pub(crate) fn new(
        preparer: Arc<Mutex<Preparer>>,
        batch: Arc<Batch>,
        first: ClickHouseWrite,
        next: usize,
    ) -> Self {
        let held_bytes = first.held_bytes();
        Self { preparer, batch, piece: Some(first), next, held_bytes }
    }
}

#[async_trait]
impl Write for PiecesWrite {
    /// Of the first piece; the others are about as large.
    fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    async fn send(&mut self) -> Result<(), SinkError> {
        let piece = match &mut self.piece {
            Some(piece) => piece,
            None => {
                let (piece, next) = self.preparer.lock().await.prepare(&self.batch, self.next).await?;
                self.next = next;
                self.piece.insert(piece)
            }
        };
        piece.send().await?;
        self.piece = None;
        Ok(())
    }

    fn has_more(&self) -> bool {
        self.next < self.batch.len()
    }
}
