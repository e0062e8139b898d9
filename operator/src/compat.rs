//! Flags and variables of temporal-worker-controller, so that its manifests start this operator: those that mean something are
//! settings of the same name; the others are taken, do nothing, and are named once when the operator starts.

use std::collections::BTreeSet;
use std::ffi::OsString;

use clap::{Args, CommandFactory as _};

use crate::settings::Cli;

/// Flags that mean nothing here.
#[derive(Clone, Debug, Default, Args)]
pub struct UnusedFlags {
    /// Development mode of the controller's logger.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    zap_devel: Option<String>,
    /// Encoding of its log lines.
    #[arg(long, hide = true)]
    zap_encoder: Option<String>,
    /// Its log level.
    #[arg(long, hide = true)]
    zap_log_level: Option<String>,
    /// Level from which it logs stack traces.
    #[arg(long, hide = true)]
    zap_stacktrace_level: Option<String>,
    /// Form of its timestamps.
    #[arg(long, hide = true)]
    zap_time_encoding: Option<String>,
    /// Folder of its webhooks' certificate.
    #[arg(long, hide = true)]
    webhook_cert_dir: Option<String>,
    /// File of the certificate.
    #[arg(long, hide = true)]
    webhook_cert_name: Option<String>,
    /// File of its key.
    #[arg(long, hide = true)]
    webhook_key_name: Option<String>,
}

const LOGGER: &str = "use --log-level and --log-format";
const NO_WEBHOOK: &str = "there is no webhook";

/// Variables that mean nothing here, and what does instead.
const UNUSED_VARIABLES: [(&str, &str); 4] = [
    ("CONTROLLER_IDENTITY_SUFFIX", "the identity is completed by the UID of the operator's namespace"),
    ("CONTROLLER_VERSION", "the version is that of the program"),
    ("SERVICE_ACCOUNT_NAME", NO_WEBHOOK),
    ("WEBHOOK_CERT_DIR", NO_WEBHOOK),
];

/// What was said and does nothing, a sentence each. `is_set` says whether a variable is set.
#[must_use]
pub fn unused(flags: &UnusedFlags, is_set: impl Fn(&str) -> bool) -> Vec<String> {
    let said = [
        ("--zap-devel", &flags.zap_devel, LOGGER),
        ("--zap-encoder", &flags.zap_encoder, LOGGER),
        ("--zap-log-level", &flags.zap_log_level, LOGGER),
        ("--zap-stacktrace-level", &flags.zap_stacktrace_level, LOGGER),
        ("--zap-time-encoding", &flags.zap_time_encoding, LOGGER),
        ("--webhook-cert-dir", &flags.webhook_cert_dir, NO_WEBHOOK),
        ("--webhook-cert-name", &flags.webhook_cert_name, NO_WEBHOOK),
        ("--webhook-key-name", &flags.webhook_key_name, NO_WEBHOOK),
    ];
    let flags = said.into_iter().filter(|(_, value, _)| value.is_some()).map(|(flag, _, why)| (flag, why));
    let variables = UNUSED_VARIABLES.into_iter().filter(|(name, _)| is_set(name));
    flags.chain(variables).map(|(what, why)| format!("{what} has no effect: {why}")).collect()
}

/// The arguments of the process, in which a flag of the operator may have one dash, as Go's have.
#[must_use]
pub fn arguments(given: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let command = Cli::command();
    let known: BTreeSet<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
    let mut ended = false;
    let with_two = |argument: OsString| {
        ended |= argument == "--";
        let name = argument.to_str().and_then(|text| text.strip_prefix('-'));
        let name = name.map(|name| name.split_once('=').map_or(name, |(name, _)| name));
        if ended || name.is_none_or(|name| !known.contains(name)) {
            return argument;
        }
        let mut doubled = OsString::from("-");
        doubled.push(argument);
        doubled
    };
    given.into_iter().map(with_two).collect()
}

/// Reads a truth value as Go's flags have them.
///
/// # Errors
/// It is none.
pub fn truth(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" | "" => Ok(false),
        other => Err(format!("{other:?} is neither true nor false")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn parse(flags: &[&str]) -> Result<Cli, clap::Error> {
        let given = [&["temporal-worker-operator"], flags].concat();
        Cli::try_parse_from(arguments(given.into_iter().map(OsString::from)))
    }

    #[test]
    fn the_controllers_flags_are_taken_in_every_form_that_go_takes() {
        for flags in [
            &["--leader-elect", "--metrics-bind-address=:9090", "--watch-namespaces=a,b"][..],
            &["-leader-elect", "-metrics-bind-address=:9090", "-watch-namespaces=a,b"],
            &["-leader-elect=true", "-metrics-bind-address", ":9090", "--watch-namespaces", "a,b"],
            &[
                "--leader-elect=1",
                "--metrics-bind-address=:1",
                "-metrics-bind-address=:9090",
                "-watch-namespaces",
                "a,b",
            ],
        ] {
            let settings = parse(flags).unwrap_or_else(|error| panic!("{flags:?}: {error}")).settings;
            assert!(settings.leader_elect, "{flags:?}");
            assert_eq!(settings.metrics_bind_address.port(), 9090, "{flags:?}");
            assert_eq!(settings.namespaces(), ["a", "b"], "{flags:?}");
        }
        assert!(!parse(&["--leader-elect=false"]).unwrap().settings.leader_elect);
        assert_eq!(parse(&["-kubeconfig", "/k"]).unwrap().settings.kubeconfig, Some("/k".into()));
    }

    #[test]
    fn what_is_no_flag_is_refused_with_one_dash_and_with_two() {
        for flags in
            [&["--no-such-flag"][..], &["-no-such-flag=1"], &["--leader-elect=maybe"], &["--", "-leader-elect"]]
        {
            assert!(parse(flags).is_err(), "{flags:?}");
        }
    }

    #[test]
    fn short_flags_of_the_commands_keep_their_dash() {
        let parsed = parse(&["plan", "prod/orders", "-o", "json"]).unwrap();
        assert!(matches!(parsed.command, Some(crate::settings::Command::Plan(_))));
    }

    #[test]
    fn flags_and_variables_that_mean_nothing_are_named_and_no_others() {
        let flags = ["-zap-log-level=debug", "--zap-devel", "--zap-encoder", "console", "--webhook-cert-dir=/certs"];
        let said = unused(&parse(&flags).unwrap().settings.unused, |name| name == "CONTROLLER_VERSION");
        assert_eq!(said.len(), 5, "{said:?}");
        for name in ["--zap-log-level", "--zap-devel", "--zap-encoder", "--webhook-cert-dir", "CONTROLLER_VERSION"] {
            assert!(said.iter().any(|line| line.starts_with(name)), "{name}, in {said:?}");
        }
        assert_eq!(unused(&parse(&["--leader-elect"]).unwrap().settings.unused, |_| false), Vec::<String>::new());
    }
}
