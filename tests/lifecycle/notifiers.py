"""Real notifiers of Airflow that write down what they were told: a line of JSON in a file (a relative path counts
from MAYFLY_HOME). This folder must be on PYTHONPATH."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from airflow.sdk import BaseNotifier


class WritesLine(BaseNotifier):
    """`text` is rendered, as that of a mail or a chat message would be."""

    template_fields = ("text",)

    def __init__(self, file: str, text: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.file, self.text = file, text

    def notify(self, context: Any) -> None:
        task = context.get("ti") if "reason" not in context else None
        line = {"by": task.task_id if task else "callback", "text": self.text, **context["mayfly"]}
        with Path(os.environ.get("MAYFLY_HOME", ""), self.file).open("a") as out:
            out.write(json.dumps(line) + "\n")


class KillsItsTask(WritesLine):
    """The task that tells is killed; a callback of the DAG is not."""

    def notify(self, context: Any) -> None:
        if "reason" not in context:
            os.kill(os.getpid(), signal.SIGKILL)
        super().notify(context)


class Refuses(WritesLine):
    """The mail server says no to tasks; it hears the callback."""

    def notify(self, context: Any) -> None:
        if "reason" not in context:
            raise ConnectionError("no mail today")
        super().notify(context)


class Hangs(WritesLine):
    def notify(self, context: Any) -> None:
        time.sleep(3600)
