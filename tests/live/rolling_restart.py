"""Restart two instances behind nginx one after the other, under load, and print what callers noticed of it.

Run as ``QUILL_TEST_DATABASE_URL=… python -m tests.live.rolling_restart``, with ``QUILL_TEST_REDIS_URL`` where there
is a Redis, and ``--keep-alive`` to let nginx keep its connections to the instances.
"""

import argparse
import asyncio
import contextlib
import getpass
import http.client
import json
import os
import secrets
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from quill.adapters.push.vapid import new_private_key
from tests.databases import PostgresqlDatabases
from tests.live.instances import Server, free_port, path_of, quill_command
from tests.live.load import Figures, Load

CALLERS = 8
PAUSE_SECONDS = 0.05
SETTLE_SECONDS = 2.0
KEPT_SECONDS = 1
"""How long nginx keeps an idle connection to an instance in this trial."""

NGINX = """
daemon off;
pid {directory}/nginx.pid;
error_log stderr error;
{user}
events {{ }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  upstream quill {{
    server 127.0.0.1:{first} max_fails=0;
    server 127.0.0.1:{second} max_fails=0;
    {keep_alive}
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://quill;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_connect_timeout 1s;
      proxy_next_upstream error timeout;
    }}
  }}
}}
"""


@dataclass
class Trial:
    """What came of it: while nothing was restarted, and while each instance was."""

    calm: Figures
    restarting: Figures
    missing: set[int]

    def __str__(self) -> str:
        return f"calm:       {self.calm}\nrestarting: {self.restarting}\nmissing:    {sorted(self.missing)}"


def run(database_url: str, redis_url: str | None, directory: Path, *, keeps_alive: bool) -> Trial:
    """Set everything up in a directory, restart both instances under load, and take everything down again."""
    environment = settings(database_url, redis_url, directory, notice_seconds=KEPT_SECONDS + 1 if keeps_alive else 0)
    told = quill(environment, "migrate") and quill(environment, "demo", "--json")
    account = json.loads(told)["accounts"][0]
    with contextlib.ExitStack() as stack:
        instances = [stack.enter_context(instance(number, environment, directory)) for number in (1, 2)]
        proxy = stack.enter_context(nginx(instances, directory, keeps_alive=keeps_alive))
        load = Load(f"http://127.0.0.1:{proxy.port}", account["username"], account["password"])
        return asyncio.run(_under_load(load, instances))


async def _under_load(load: Load, instances: list[Server]) -> Trial:
    await load.sign_in()
    async with load.running(CALLERS, PAUSE_SECONDS):
        await asyncio.sleep(SETTLE_SECONDS)
        calm = load.begin_anew()
        for one in instances:
            await asyncio.to_thread(one.stop)
            await asyncio.to_thread(one.start)
            await asyncio.sleep(SETTLE_SECONDS / 2)
        restarting = load.begin_anew()
    trial = Trial(calm, restarting, await load.missing())
    await load.close()
    return trial


def settings(database_url: str, redis_url: str | None, directory: Path, *, notice_seconds: float) -> Mapping[str, str]:
    """Return the environment both instances run in: the same secrets, the same database."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("QUILL_")}
    return (
        kept
        | {
            "QUILL_DATABASE_URL": database_url,
            "QUILL_DATA_DIR": str(directory),
            "QUILL_SECRET_KEY": secrets.token_urlsafe(48),
            "QUILL_VAPID_PRIVATE_KEY": new_private_key(),
            "QUILL_TRUSTED_PROXIES": '["127.0.0.1"]',
            "QUILL_STOP_NOTICE_SECONDS": str(notice_seconds),
            "QUILL_LOG_LEVEL": "warning",
        }
        | ({"QUILL_REDIS_URL": redis_url} if redis_url else {})
    )


def quill(environment: Mapping[str, str], *words: str) -> str:
    """Run a command to its end and return what it said."""
    return subprocess.run(quill_command(*words), env=environment, check=True, capture_output=True, text=True).stdout


@contextlib.contextmanager
def instance(number: int, environment: Mapping[str, str], directory: Path) -> Iterator[Server]:
    """Run one instance."""
    port = free_port()
    command = quill_command("serve", "--port", str(port))
    log = directory / f"instance-{number}.log"
    server = Server(command, port, is_up=_is_ready, environment=environment, log=log)
    server.start()
    try:
        yield server
    finally:
        server.end()


@contextlib.contextmanager
def nginx(instances: list[Server], directory: Path, *, keeps_alive: bool) -> Iterator[Server]:
    """Run nginx before the instances."""
    port = free_port()
    configuration = directory / "nginx.conf"
    configuration.write_text(
        NGINX.format(
            directory=directory,
            user=f"user {getpass.getuser()};" if os.getuid() == 0 else "",
            first=instances[0].port,
            second=instances[1].port,
            keep_alive=f"keepalive 16; keepalive_timeout {KEPT_SECONDS}s;" if keeps_alive else "",
            port=port,
        )
    )
    command = [path_of("nginx"), "-p", str(directory), "-c", str(configuration), "-e", "stderr"]
    server = Server(command, port, log=directory / "nginx.log")
    server.start()
    try:
        yield server
    finally:
        server.stop()
        server.end()


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/api/health/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def main() -> None:
    """Run the trial on the servers of the environment and print its figures."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--keep-alive", action="store_true", help="let nginx keep connections to the instances")
    keeps_alive = words.parse_args().keep_alive
    databases = PostgresqlDatabases(os.environ["QUILL_TEST_DATABASE_URL"])
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        url = databases.empty(directory)
        try:
            trial = run(url, os.environ.get("QUILL_TEST_REDIS_URL"), directory, keeps_alive=keeps_alive)
        finally:
            databases.drop(url)
    print(trial)


if __name__ == "__main__":
    main()
