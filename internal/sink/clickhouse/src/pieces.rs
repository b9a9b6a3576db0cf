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
}

impl PiecesWrite {
    pub(crate) fn new(
        preparer: Arc<Mutex<Preparer>>,
        batch: Arc<Batch>,
        first: ClickHouseWrite,
        next: usize,
    ) -> Self {
        Self { preparer, batch, piece: Some(first), next }
    }
}

#[async_trait]
impl Write for PiecesWrite {
    /// Of the piece that is prepared; the others are about as large.
    fn held_bytes(&self) -> usize {
        self.piece.as_ref().map_or(0, Write::held_bytes)
    }

    /// What it does is short, so that whether this process may write is asked before each request that writes: a piece is
    /// prepared by one call and sent by the next.
    async fn send(&mut self) -> Result<(), SinkError> {
        if let Some(piece) = &mut self.piece {
            piece.send().await?;
            self.piece = None;
        } else if self.next < self.batch.len() {
            let (piece, next) = self.preparer.lock().await.prepare(&self.batch, self.next).await?;
            self.piece = Some(piece);
            self.next = next;
        }
        Ok(())
    }

    fn has_more(&self) -> bool {
        self.piece.is_some() || self.next < self.batch.len()
    }
}
