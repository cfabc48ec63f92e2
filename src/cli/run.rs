//! `berth run`: the operator.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing_subscriber::EnvFilter;

use super::Database;
use crate::operator;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Namespace that the operator runs in: its Lease is there.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE")]
    namespace: String,
    /// Name of this replica's pod; it names the replica in the ledger.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pod: String,
    /// Address of /healthz, /readyz and /metrics.
    #[arg(long, env = "BERTH_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Folder of this replica's spool, on a volume that outlives the pod.
    #[arg(long, env = "BERTH_SPOOL_DIR", value_name = "DIR", default_value = "/var/lib/berth/spool")]
    spool: PathBuf,
    /// How log lines look.
    #[arg(long, env = "BERTH_LOG_FORMAT", value_enum, default_value = "json")]
    log_format: LogFormat,
    #[command(flatten)]
    database: Database,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum LogFormat {
    /// One JSON object a line, for log stores.
    Json,
    /// For people.
    Text,
}

pub(super) async fn run(args: Args) -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter);
    match args.log_format {
        LogFormat::Json => log.json().flatten_event(true).init(),
        LogFormat::Text => log.init(),
    }
    let (stop, stopped) = watch::channel(false);
    let config = operator::Config {
        namespace: args.namespace,
        pod: args.pod,
        listen: args.listen,
        database: args.database.source(),
        spool: args.spool,
    };
    tokio::spawn(async move {
        told_to_stop().await;
        tracing::info!("told to stop");
        stop.send_replace(true);
    });
    match operator::run(config, stopped).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = operator::explain(&error), "the operator cannot run");
            ExitCode::from(2)
        }
    }
}

/// SIGTERM from the kubelet, SIGINT from a keyboard.
async fn told_to_stop() {
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        // Without handlers the signals end the process by themselves.
        _ => std::future::pending().await,
    }
}
