//! The options that choose tenants, the same wherever a command works on several.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::error::{Exit, Failure};
use crate::migrations::WhereClause;
use crate::postgres::tenants::catalog::PostgresCatalog;
use crate::postgres::tenants::where_clause::WhereError;
use crate::service::selection::{Listed, Selection};

/// Which tenants.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct SelectArgs {
    /// Only these: slug, schema or host, or a glob over them such as 'a*'
    #[arg(
        long = "tenant",
        short = 't',
        value_name = "TENANT",
        value_delimiter = ',',
        help_heading = "Selection"
    )]
    pub(crate) tenants: Vec<String>,
    /// Only these: a file with a slug, schema or host on each line; - is stdin
    #[arg(long, value_name = "FILE", help_heading = "Selection")]
    pub(crate) from_file: Option<PathBuf>,
    /// Of these only the ones for which an SQL condition over the columns of the tenant table holds
    #[arg(long = "where", value_name = "SQL", help_heading = "Selection")]
    pub(crate) condition: Option<String>,
    /// All but these
    #[arg(
        long,
        value_name = "TENANT",
        value_delimiter = ',',
        help_heading = "Selection"
    )]
    pub(crate) exclude: Vec<String>,
}

/// What was typed, read as far as no server is needed for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selectors {
    selection: Selection,
    condition: Option<WhereClause>,
}

impl SelectArgs {
    /// Returns whether nothing was typed, so that every tenant is meant.
    #[must_use]
    pub(crate) fn is_everything(&self) -> bool {
        self.tenants.is_empty()
            && self.from_file.is_none()
            && self.condition.is_none()
            && self.exclude.is_empty()
    }

    /// Returns whether nothing was typed that names somebody.
    #[must_use]
    pub(crate) fn names_nobody(&self) -> bool {
        self.tenants.is_empty() && self.from_file.is_none() && self.condition.is_none()
    }

    /// Reads the file and the condition.
    ///
    /// # Errors
    ///
    /// Exit 2 for a file that cannot be read, and for a condition that cannot be one.
    pub(crate) fn read(&self) -> Result<Selectors, Failure> {
        let listed = self.from_file.as_deref().map(list).transpose()?;
        let condition = self.condition.as_deref().map(|text| {
            WhereClause::parse(text).map_err(|error| {
                let cause = anyhow::Error::new(error).context("--where is no condition");
                Failure::new(Exit::Usage, cause)
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
    /// Asks the server for whom the condition holds, if there is one, and returns the selection.
    ///
    /// # Errors
    ///
    /// Exit 2 for a condition that the server refuses.
    pub(crate) async fn resolve(self, catalog: &PostgresCatalog) -> Result<Selection, Failure> {
        let only = match &self.condition {
            Some(condition) => Some(catalog.matching(condition).await?),
            None => None,
        };
        Ok(Selection {
            only,
            ..self.selection
        })
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
                let cause = anyhow::Error::new(refused).context("the server refuses --where");
                let failure = Self::new(Exit::Usage, cause);
                match hint {
                    Some(hint) => failure.hint(hint),
                    None => failure,
                }
            }
        }
    }
}

fn list(path: &Path) -> Result<Listed, Failure> {
    let (name, text) = if path == Path::new("-") {
        let mut text = String::new();
        let read = std::io::stdin().lock().read_to_string(&mut text);
        ("stdin".to_owned(), read.map(|_| text))
    } else {
        (path.display().to_string(), std::fs::read_to_string(path))
    };
    match text {
        Ok(text) => Ok(Listed::parse(&name, &text)),
        Err(error) => {
            let cause = anyhow::Error::new(error).context(format!("cannot read {name}"));
            Err(Failure::new(Exit::Usage, cause))
        }
    }
}
