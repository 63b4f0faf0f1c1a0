//! Options that select tenants.

use std::path::PathBuf;

use super::read_file_or_stdin;

use crate::error::{Exit, Failure};
use crate::migrations::WhereClause;
use crate::postgres::tenants::catalog::PostgresCatalog;
use crate::postgres::tenants::where_clause::WhereError;
use crate::service::selection::{Listed, Selection};

/// `--tenant`, `--from-file`, `--where`, `--exclude`.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct SelectArgs {
    /// Only these: slug, schema or host, or a glob such as 'a*'
    #[arg(
        long = "tenant",
        short = 't',
        value_name = "TENANT",
        value_delimiter = ',',
        help_heading = "Selection"
    )]
    pub(crate) tenants: Vec<String>,
    /// Only those in this file, one slug, schema or host a line; - is stdin
    #[arg(long, value_name = "FILE", help_heading = "Selection")]
    pub(crate) from_file: Option<PathBuf>,
    /// Only those whose row in the tenant table satisfies this SQL condition
    #[arg(long = "where", value_name = "SQL", help_heading = "Selection")]
    pub(crate) condition: Option<String>,
    /// Not these: slug, schema or host, or a glob
    #[arg(long, value_name = "TENANT", value_delimiter = ',', help_heading = "Selection")]
    pub(crate) exclude: Vec<String>,
}

/// The selection as far as it can be read without a server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selectors {
    selection: Selection,
    condition: Option<WhereClause>,
}

impl SelectArgs {
    /// Returns whether there is no option, which selects every tenant.
    pub(crate) fn is_everything(&self) -> bool {
        !self.is_selective() && self.exclude.is_empty()
    }

    /// Returns whether an option other than `--exclude` is given.
    pub(crate) fn is_selective(&self) -> bool {
        !self.tenants.is_empty() || self.from_file.is_some() || self.condition.is_some()
    }

    /// Reads the file and the condition.
    ///
    /// # Errors
    ///
    /// Exit 2 for a file that cannot be read, and for an invalid condition.
    pub(crate) fn read(&self) -> Result<Selectors, Failure> {
        let listed = match &self.from_file {
            Some(path) => {
                let (name, text) = read_file_or_stdin(path)?;
                Some(Listed::parse(&name, &text))
            }
            None => None,
        };
        let condition = self.condition.as_deref().map(|text| {
            WhereClause::parse(text).map_err(|error| {
                Failure::with_context(Exit::Usage, error, "--where is not a valid condition")
            })
        });
        Ok(Selectors {
            selection: Selection {
                include: self.tenants.clone(),
                listed,
                only: None,
                exclude: self.exclude.clone(),
            },
            condition: condition.transpose()?,
        })
    }
}

impl Selectors {
    /// Evaluates the condition on the server, if there is one, and returns the selection.
    ///
    /// # Errors
    ///
    /// Exit 2 for a condition that the server rejects.
    pub(crate) async fn resolve(self, catalog: &PostgresCatalog) -> Result<Selection, Failure> {
        let only = match &self.condition {
            Some(condition) => Some(catalog.matching(condition).await?),
            None => None,
        };
        Ok(Selection { only, ..self.selection })
    }
}

impl From<WhereError> for Failure {
    fn from(error: WhereError) -> Self {
        match error {
            WhereError::Catalog(error) => error.into(),
            refused => {
                let hint = match &refused {
                    WhereError::Refused { said, .. } => said.hint.clone(),
                    _ => None,
                };
                Self::with_context(Exit::Usage, refused, "the server rejects --where").hints(hint)
            }
        }
    }
}
