"""Generators on other machines: the workers of a Dask cluster start them, and relay what they send.

What is here is for `--cluster` only, and nothing else imports it: `distributed` comes with the extra
`pool-bench[cluster]`. `crew.py` is the client's side, `launcher.py` the worker's; between them go orders and
words (`Client.run`) and events (`Worker.log_event`). Merging, gates and the verdict are those of processes of
one machine.
"""

from pathlib import Path
from typing import Final

SETTINGS_FILE: Final = Path(__file__).with_name("dask.yaml")
"""What schedulers and workers are to be started with (`DASK_CONFIG`), each setting with its reason."""
