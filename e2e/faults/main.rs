//! `make faults`, and the proxies as programs of their own: `e2e/faults/run` says how.

use std::{env, io, net::SocketAddr, path::Path, process::ExitCode, sync::Arc};

use berth_e2e::{
    faults::{
        api, control, database,
        matrix::{self, Options},
        report::{self, Level},
    },
    install,
};

const USAGE: &str = "usage:
  run                                          the matrix; ROW=n[,n], LEVEL=real, SECONDS=n, ALLOW_UNCOVERED=1
  run database LISTEN UPSTREAM CONTROL         a proxy before PostgreSQL: HOST:PORT, HOST:PORT or socket, control socket
  run api LISTEN KUBECONFIG CONTROL NEW [TOKEN-FILE]
                                               a proxy before the API server; writes the kubeconfig NEW.
                                               Behind TLS where BERTH_STATE is set
  run tell CONTROL WORDS...                    changes the weather (words: e2e/src/faults/control.rs)";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        [] => run_matrix(),
        ["database", listen, upstream, socket] => proxy_database(listen, upstream, Path::new(socket)),
        ["api", listen, kubeconfig, socket, new] => proxy_api(listen, kubeconfig, Path::new(socket), new, None),
        ["api", listen, kubeconfig, socket, new, token] => {
            proxy_api(listen, kubeconfig, Path::new(socket), new, Some(token))
        }
        ["tell", socket, words @ ..] => control::tell(Path::new(socket), &words.join(" ")).map(|answer| {
            println!("{answer}");
            answer.starts_with("ok")
        }),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("faults: {error}");
            ExitCode::from(2)
        }
    }
}

fn run_matrix() -> io::Result<bool> {
    let given = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let wrong = |name: &str, value: &str| io::Error::other(format!("{name}={value} is not understood"));
    let mut options = Options { top: install::top(), seed: report::seed(), ..Options::default() };
    for row in given("ROW").iter().flat_map(|rows| rows.split(',')) {
        options.rows.insert(row.trim().parse().map_err(|_| wrong("ROW", row))?);
    }
    if let Some(level) = given("LEVEL") {
        options.level = Some(match level.as_str() {
            "model" => Level::Model,
            "simulated" => Level::Simulated,
            "real" => Level::Real,
            _ => return Err(wrong("LEVEL", &level)),
        });
    }
    if let Some(seconds) = given("BERTH_FAULT_SECONDS") {
        options.seconds = Some(seconds.parse().map_err(|_| wrong("SECONDS", &seconds))?);
    }
    options.cluster = given("BERTH_CLUSTER").unwrap_or_default();
    options.more_clusters =
        given("MORE_CLUSTERS").iter().flat_map(|names| names.split(',')).map(str::to_owned).collect();
    options.released = given("BERTH_RELEASED").is_some();
    options.allow_uncovered = given("ALLOW_UNCOVERED").is_some_and(|value| value != "0");
    println!("seed {}", options.seed);
    matrix::run(&matrix::read(&options.top.join("e2e/faults/matrix.yaml"))?, &options)
}

fn address(text: &str) -> io::Result<SocketAddr> {
    text.parse().map_err(|_| io::Error::other(format!("{text} is no ADDRESS:PORT")))
}

fn proxy_database(listen: &str, upstream: &str, socket: &Path) -> io::Result<bool> {
    let upstream = if upstream.starts_with('/') {
        database::Upstream::Socket(upstream.into())
    } else {
        database::Upstream::Address(upstream.to_owned())
    };
    let proxy = Arc::new(database::Proxy::start_at(address(listen)?, upstream)?);
    let address = proxy.address();
    let _control = control::serve(socket, proxy)?;
    until_told(address)
}

fn proxy_api(listen: &str, kubeconfig: &str, socket: &Path, new: &str, token: Option<&str>) -> io::Result<bool> {
    let upstream = api::Upstream::from_kubeconfig(Path::new(kubeconfig)).map_err(io::Error::other)?;
    let certificate = match env::var_os("BERTH_STATE").filter(|state| !state.is_empty()) {
        Some(state) => Some(api::Certificate::of_cluster(Path::new(&state))?),
        None => None,
    };
    let token = token.map(std::fs::read_to_string).transpose()?.unwrap_or_default();
    let proxy = Arc::new(api::Proxy::start_at(address(listen)?, upstream, certificate)?);
    proxy.write_kubeconfig(Path::new(new), token.trim())?;
    let address = proxy.address();
    let _control = control::serve(socket, proxy)?;
    until_told(address)
}

/// Says where it listens, and lasts until its standard input ends: so it goes when whoever started it goes.
fn until_told(address: SocketAddr) -> io::Result<bool> {
    println!("{address}");
    io::copy(&mut io::stdin().lock(), &mut io::sink())?;
    Ok(true)
}
