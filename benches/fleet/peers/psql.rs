//! psql in a loop: one process for each schema, with all files in one transaction and no history.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::bench::Bench;
use crate::files::tenant_files;
use crate::server;

/// Returns the loop over these schemas.
pub(crate) fn cold(bench: &Bench, database: &str, schemas: &[String]) -> Result<Command> {
    let dir = bench.projects.folder("psql")?;
    let mut files = String::new();
    for file in tenant_files()? {
        let path = dir.join(format!("{:04}.sql", file.version));
        std::fs::write(&path, &file.text)?;
        files.push_str(" -f ");
        files.push_str(&path.display().to_string());
    }
    let psql = server::program("psql").unwrap_or_else(|| Path::new("psql").to_owned());
    let line = format!(
        "PGOPTIONS=\"-c search_path=$1,public\" {} -X -q -1 -v ON_ERROR_STOP=1 -d '{}'{files}",
        psql.display(),
        bench.url(database)
    );
    super::for_each_schema(schemas, &line, &dir.join("schemas"))
}
