//! The program `temporal-worker-operator`.
#![deny(clippy::unwrap_used, clippy::expect_used)]

use std::process::ExitCode;

use clap::Parser;
use temporal_worker_operator::settings::{Cli, Command};
use temporal_worker_operator::{cli, compat, run, telemetry};

fn main() -> anyhow::Result<ExitCode> {
    #[cfg(feature = "breach")]
    take_down_borders();
    let cli = Cli::parse_from(compat::arguments(std::env::args_os()));
    match cli.command {
        Some(Command::BuildId { file, json }) => cli::build_id::run(&file, json, std::io::stdin(), std::io::stdout()),
        Some(Command::Crds { out, check }) => cli::crds::run(out.as_deref(), check, std::io::stdout()),
        Some(Command::PushKubeconfig { fleet, server, ca, request, operator_namespace }) => {
            let ca = ca.or_else(|| cli::push_kubeconfig::authority(&cli.settings.push));
            let namespace = operator_namespace.unwrap_or(cli.settings.pod_namespace);
            let wanted = cli::push_kubeconfig::Wanted { fleet, server, ca, request, namespace };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(cli::push_kubeconfig::run(&wanted, std::io::stdout()))
        }
        Some(Command::Reference) => cli::crds::reference(std::io::stdout()),
        Some(Command::Explain { fleet, output }) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(cli::explain::run(&fleet, output, std::io::stdout()))
        }
        Some(Command::Plan(arguments)) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let plan = cli::plan::run(&arguments, cli.settings, std::io::stdin(), std::io::stdout());
            return Ok(ExitCode::from(runtime.block_on(plan)?));
        }
        Some(Command::Migrate(command)) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let check = cli::migrate::run(&command, cli.settings.kubeconfig.as_deref(), std::io::stdout());
            return Ok(ExitCode::from(runtime.block_on(check)?));
        }
        Some(Command::DeleteFleets { timeout }) => {
            telemetry::start(&cli.settings)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let timeout = std::time::Duration::from_secs(timeout);
            runtime.block_on(cli::delete_fleets::run(&cli.settings.namespaces(), timeout))
        }
        None => {
            telemetry::start(&cli.settings)?;
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            runtime.block_on(run::run(cli.settings))
        }
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Takes down what a test of the borders between tenants names.
#[cfg(feature = "breach")]
fn take_down_borders() {
    let names = std::env::var("TEMPORAL_OPERATOR_BREACH").unwrap_or_default();
    eprintln!("a build for tests alone, without these borders: {:?}", operator_core::border::take_down(&names));
}
