"""The process that holds NVML: one look for each line on its standard input, as one line of JSON.

It ends, with NVML shut down, when its input ends; and with its parent, whatever ends that.
Started as `python -m stokehold.agent.sampler_child FD look|probe [SKIPPED_CALL...]`, where FD is
shared memory for the name of the call that is under way.
"""

import ctypes
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TextIO

from stokehold.agent.nvml import Announce, Session, SessionError
from stokehold.agent.probe_calls import probe_calls
from stokehold.agent.progress import progress_writer
from stokehold.agent.readings import NodeReading

_PR_SET_PDEATHSIG = 1


def main(arguments: Sequence[str]) -> int:
    """Serve until the input ends; 1 when NVML could not be opened or went away."""
    # With hostPID the container's first process is no init: nobody else would end us.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    announce = progress_writer(int(arguments[0]))
    if arguments[1] == "probe":
        for outcome in probe_calls(announce, skipped=frozenset(arguments[2:])):
            _tell(sys.stdout, asdict(outcome))
        return 0
    return _serve_looks(announce, sys.stdin, sys.stdout)


def _serve_looks(announce: Announce, orders: TextIO, answers: TextIO) -> int:
    try:
        with Session(announce) as session:
            _tell(answers, asdict(NodeReading()))  # open
            announce("")
            for _ in orders:
                look = session.read()
                announce("")
                _tell(answers, asdict(look))
    except SessionError as error:
        _tell(answers, asdict(NodeReading(error=str(error))))
        return 1
    return 0


def _tell(answers: TextIO, answer: object) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
