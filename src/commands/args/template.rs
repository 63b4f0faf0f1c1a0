//! The flag of every command that fills empty schemas.

use crate::settings::Overrides;

/// Whether templates are used.
#[derive(clap::Args, Debug)]
pub(crate) struct TemplateArgs {
    /// Run the files one by one, even where one script would make the same
    #[arg(long)]
    no_template: bool,
}

impl TemplateArgs {
    /// Notes the setting, if it was typed.
    pub(crate) fn override_settings(&self, overrides: &mut Overrides) {
        let off = self.no_template.then_some("off");
        overrides.set("run.template", "--no-template", off);
    }
}
