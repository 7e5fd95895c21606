"""A real Prometheus, for tests."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from deploy.embedded.server import free_port


class Prometheus:
    """Scrapes five times a second; a context manager.

    Args:
        folder: for its configuration, data and log.
        targets: host and port of what is scraped, by job.
        rules: files of rules, evaluated once a second.
    """

    def __init__(self, folder: Path, targets: Mapping[str, Sequence[str]], rules: Sequence[Path] = ()) -> None:
        self._folder = folder
        self._url = f"127.0.0.1:{free_port()}"
        self._config = {
            "global": {"scrape_interval": "200ms", "scrape_timeout": "200ms", "evaluation_interval": "1s"},
            "rule_files": [str(path) for path in rules],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": addresses}]} for job, addresses in targets.items()
            ],
        }

    def __enter__(self) -> Self:
        program = shutil.which("prometheus", path=str(Path(sys.executable).parent)) or shutil.which("prometheus")
        assert program, "no prometheus: 'make test' fetches it"
        (self._folder / "prometheus.yml").write_text(json.dumps(self._config))  # JSON is YAML
        command = [program, f"--config.file={self._folder}/prometheus.yml", f"--storage.tsdb.path={self._folder}/data"]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen([*command, f"--web.listen-address={self._url}"], stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while not self._scrapes():
            if time.monotonic() > deadline:
                self.__exit__()
                raise AssertionError((self._folder / "log").read_text()[-2000:])
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(20)

    def _scrapes(self) -> bool:
        try:
            return any(value == 1 for _, value in self.ask("up"))
        except OSError:
            return False

    def ask(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """The series that an expression gives now: labels and value.

        Raises:
            ValueError: it is no expression; the message says why.
        """
        found = self._get("query", query=expression)
        return [(each["metric"], float(each["value"][1])) for each in found["result"]]

    def label_values(self, label: str, selector: str) -> list[str]:
        """The values that a label of the selected series has, as Grafana asks for those of a variable."""
        return self._get(f"label/{label}/values", **{"match[]": selector})

    def alerts(self) -> list[dict[str, Any]]:
        """The alerts that fire, or will if it goes on, as Alertmanager would be told of them."""
        return self._get("alerts")["alerts"]

    def _get(self, path: str, **parameters: str) -> Any:
        url = f"http://{self._url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code == 503:  # not ready yet
                raise
            raise ValueError(f"{parameters}: {error.read().decode()}") from None
