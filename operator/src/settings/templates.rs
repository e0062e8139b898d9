//! Settings of WorkerResourceTemplates.

use clap::Args;
use operator_core::resource_template::AllowedKinds;

/// What WorkerResourceTemplates may be.
#[derive(Clone, Debug, Default, Args)]
pub struct TemplateSettings {
    /// Kinds that WorkerResourceTemplates may have, separated by commas, whatever the case of their letters; none allows none.
    #[arg(long, env, default_value = "", value_delimiter = ',')]
    pub allowed_kinds: Vec<String>,
    /// ValidatingAdmissionPolicy, and binding of the same name, that checks what the authors of WorkerResourceTemplates may do.
    /// Without them WorkerResourceTemplates are off.
    #[arg(long, env, value_name = "NAME")]
    pub resource_template_policy: Option<String>,
}

impl TemplateSettings {
    /// The kinds.
    #[must_use]
    pub fn kinds(&self) -> AllowedKinds {
        AllowedKinds::new(self.allowed_kinds.iter().map(String::as_str))
    }

    /// Name of the policy, if there is one.
    #[must_use]
    pub fn policy(&self) -> Option<String> {
        self.resource_template_policy.clone().filter(|name| !name.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::settings::Cli;

    #[test]
    fn no_kind_is_allowed_unless_it_is_named() {
        let parse =
            |flags: &[&str]| Cli::parse_from([&["temporal-worker-operator"], flags].concat()).settings.templates;
        assert!(!parse(&[]).kinds().allow("ConfigMap") && parse(&[]).policy().is_none());
        let kinds = parse(&["--allowed-kinds=HorizontalPodAutoscaler, configmap"]).kinds();
        assert!(kinds.allow("ConfigMap") && kinds.allow("HorizontalPodAutoscaler") && !kinds.allow("Secret"));
        assert_eq!(parse(&["--resource-template-policy=p"]).policy().as_deref(), Some("p"));
    }
}
