# shellcheck shell=bash disable=SC2154 # the names come from lib.sh
# PostgreSQL for Berth: the machine's programs with a data folder of this cluster. Inside the namespace it listens with
# TLS at the node's address, where pods reach it; a Unix socket serves the administrator from any shell, since sockets
# with a path do not belong to a network namespace.

postgres=$state/postgres
administrator_url="postgres://berth_admin@localhost:5432/berth?host=$postgres/socket"

postgres_up() {
  local password
  mkdir -p "$postgres" "$state/log"
  inside "$e2e/postgres/start" "$postgres" --database berth --listen "$node_ip" >/dev/null
  ln -sfn "$postgres/data/server.log" "$state/log/postgres.log"
  [ -e "$postgres/operator-password" ] || (umask 077 && openssl rand -hex 16 | put "$postgres/operator-password")
  password=$(cat "$postgres/operator-password")
  # By standard input, so that the password is in no process list. The operator may make its own schemas, and no more.
  psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 "$administrator_url" <<SQL
SELECT 'CREATE ROLE berth_operator LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'berth_operator') \gexec
SET log_statement = 'none';
ALTER ROLE berth_operator PASSWORD '$password';
GRANT CREATE, CONNECT, TEMPORARY ON DATABASE berth TO berth_operator;
SQL
}

operator_url() {
  printf 'postgres://berth_operator:%s@%s:5432/berth?sslmode=verify-full&sslrootcert=%s' \
    "$(cat "$postgres/operator-password")" "$node_ip" "$postgres/tls/ca.crt"
}

postgres_down() { [ ! -d "$postgres" ] || "$e2e/postgres/stop" "$postgres"; }
