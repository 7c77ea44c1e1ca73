"""Every system over all jobs, one system after the other, with what else the machine did meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from devtools.bench import git_revision
from devtools.bench.measurement import Failed
from devtools.eval import backend_client, baseline
from devtools.eval.compare.specs import BACKEND, Spec, SpecError
from devtools.eval.hypotheses import Hypothesis, Job, Run
from devtools.machine_load import LoadWatch
from devtools.server_process import ServerFailed

Runner = Callable[[Sequence[Job]], Run]


def runners(specs: Sequence[Spec]) -> dict[str, Runner]:
    """By the systems' names. Other commits are installed here, before anything runs. Raises SpecError, NotLoadable."""
    return {spec.name: _runner(spec) for spec in specs}


def run(name: str, runner: Runner, jobs: Sequence[Job]) -> Run:
    """The run with its load. A further system that does not load is a failure of all its jobs.

    Raises ServerFailed where the first one does not.
    """
    with LoadWatch() as watch:
        try:
            found = runner(jobs)
        except ServerFailed as failure:
            if name == BACKEND:
                raise
            found = Run({job.key: Hypothesis(failure=str(failure)) for job in jobs}, None)
        return found._replace(load=watch.load())


def _runner(spec: Spec) -> Runner:
    options = spec.load()
    if spec.is_package:
        return lambda jobs: baseline.run(jobs, options)
    if not spec.revision:
        return lambda jobs: backend_client.run(jobs, options, spec.name)
    try:
        earlier = git_revision.system(spec.revision)
    except Failed as failure:
        raise SpecError(f"SYSTEMS: rev={spec.revision} of {spec.name}: {failure}") from failure
    return lambda jobs: backend_client.run(jobs, options, spec.name, command=earlier.command, folder=earlier.folder)
