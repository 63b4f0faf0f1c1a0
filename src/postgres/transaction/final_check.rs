//! The check at the end of a transaction: the escape guard, and the ledger's row with it.

use tokio_postgres::Error;

use super::batch::BatchError;
use super::escape_guard::{self, Findings};
use super::ledger::{FinishCall, is_absent};
use super::open::OpenTransaction;
use crate::domain::schema_name::SchemaName;
use crate::postgres::connection::options::GuardRules;
use crate::postgres::connection::session::Session;

/// What is checked after the last script.
pub(crate) enum FinalCheck {
    Skip,
    /// Whether the transaction stayed in its schema.
    Guard(GuardRules),
    /// The same, by the function that also writes the ledger.
    GuardAndLedger(FinishCall, GuardRules),
}

impl FinalCheck {
    /// Returns the expression that is true where the guard's full question is required.
    ///
    /// `unread`: a script runs code that pricesync cannot read, so more is checked.
    pub(crate) fn column(&self, opened: &OpenTransaction, unread: bool) -> Option<String> {
        match self {
            Self::Skip => None,
            Self::Guard(rules) => {
                Some(escape_guard::quick_question(opened.schema_oid, rules, unread))
            }
            Self::GuardAndLedger(finish, rules) => Some(finish.expression(rules, unread)),
        }
    }

    /// Classifies the error of a statement that contains the expression.
    pub(crate) fn failure(&self, error: Error) -> BatchError {
        match self {
            Self::GuardAndLedger(..) if is_absent(&error) => BatchError::LedgerMissing,
            _ => BatchError::Internal(error),
        }
    }

    /// Returns what the transaction changed outside its schema, and whether the ledger is written. The
    /// full question is asked only if the expression was true (`is_suspect`).
    pub(crate) async fn inspect(
        &self,
        session: &Session,
        schema: &SchemaName,
        is_suspect: bool,
        unread: bool,
    ) -> Result<(Findings, bool), BatchError> {
        let rules = match self {
            Self::Guard(rules) | Self::GuardAndLedger(_, rules) if is_suspect => rules,
            _ => {
                return Ok((Findings::default(), matches!(self, Self::GuardAndLedger(..))));
            }
        };
        let findings = escape_guard::inspect(session, schema, rules, unread).await;
        Ok((findings.map_err(BatchError::Internal)?, false))
    }
}
