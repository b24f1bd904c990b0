"""Everything Mayfly raises, as one tree.

    MayflyError
     ├─ InputError            what the user gave cannot work; retrying cannot help
     │   ├─ SpecError             job.yaml or targets.yaml (file, line, key)
     │   └─ PlanError             spec and target are fine alone, not together
     ├─ StoreError            the staging store
     │   ├─ StoreUnavailable      could not be read or written: *unknown*, never "absent"
     │   │   └─ StoreRefused          the store has answered, and refused: no permission, no bucket
     │   ├─ StoreUnsuitable       has no create-if-absent
     │   └─ ContractError         a file is there but is not what it should be
     ├─ BackendError          the place where clusters are made
     │   ├─ BackendUnavailable    no answer: *unknown*, never "gone"
     │   │   ├─ BackendBusy           takes no calls now; this one did nothing
     │   │   └─ CredentialsUnavailable  nobody to ask as; a StoreRefused, too
     │   ├─ BackendRefused        a clear no, nothing was done; carries its `Failure`
     │   └─ NotOurs               the name is taken by somebody else's cluster
     ├─ YarnError             YARN's ResourceManager
     │   ├─ YarnUnavailable       no answer: *unknown*, never "ended"
     │   └─ YarnRefused           what is asked for cannot run there: queue, size, label, access
     ├─ Refused               the run's state forbids this step (no living cluster, closing, ...)
     ├─ JobFailed             the job ended badly; carries its `Failure`
     ├─ ClusterFailed         the cluster did not start or died
     ├─ DeadlinePassed        a step did not finish in the time its plan gives it
     └─ NotProven             deletion is not proven; something may still be running

Every message says what was given, what is allowed and what to do. `retryable` says whether the same step may work
when tried again without a human; the Airflow operators turn it into a retry or a final failure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mayfly.contract.failure import Failure


class MayflyError(Exception):
    """Base of all errors of Mayfly."""

    retryable = False


class InputError(MayflyError):
    """Something the user wrote cannot work."""


class SpecError(InputError):
    """A configuration file is wrong.

    `file` is the path as the user knows it, `line` is 1-based (None when the error concerns the whole file),
    `key` is the dotted path of the key ("cluster.worker.memory"), empty for the whole file.
    """

    def __init__(self, message: str, *, file: str = "", line: int | None = None, key: str = "") -> None:
        self.message, self.file, self.line, self.key = message, file, line, key
        place = f"{file}:{line}" if file and line else file
        super().__init__(": ".join(part for part in (place, key, message) if part))


class PlanError(InputError):
    """The job does not fit its target in a way no adjustment can solve."""


class StoreError(MayflyError):
    """The staging store did not do what was asked."""

    retryable = True


class StoreUnavailable(StoreError):
    """No answer from the store; nothing is known about the object."""


class StoreRefused(StoreUnavailable):
    """The store does not let us. As little is known about the object, but waiting alone will not help."""


class StoreUnsuitable(StoreError):
    """The store lacks create-if-absent, without which two actors could both win."""

    retryable = False


class ContractError(StoreError):
    """A file of the run directory cannot be understood (half-written, damaged, or from a newer Mayfly)."""


class BackendError(MayflyError):
    """The backend refused or failed a verb."""

    retryable = True


class BackendUnavailable(BackendError):
    """No answer from the backend; nothing is known about the cluster."""


class BackendBusy(BackendUnavailable):
    """The backend answers that it takes no more calls for now; what was asked for has not been done."""


class BackendRefused(BackendError):
    """The backend said no, and did nothing: quota, permission, a name that it does not know.

    `sure` is False where an earlier try of the same call had no answer and may have taken effect."""

    sure = True

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        self.retryable = failure.retryable
        super().__init__(failure.summary())


class CredentialsUnavailable(StoreRefused, BackendUnavailable):
    """There are no credentials, or they are worth nothing any more: neither store nor backend can be asked."""


class NotOurs(BackendError):
    """A cluster of that name exists and carries another owner's nonce; it is never touched."""

    retryable = False


class YarnError(MayflyError):
    """YARN did not do what was asked."""

    retryable = True


class YarnUnavailable(YarnError):
    """No answer from any ResourceManager; nothing is known about the application."""


class YarnRefused(YarnError):
    """The ResourceManager refused, or would refuse or never serve, what was asked for."""

    retryable = False


class Refused(MayflyError):
    """The run is in a state in which this step must do nothing; says which tasks to clear instead."""


class JobFailed(MayflyError):
    """The job's attempt ended badly. `lines` are what its log said since the last poke."""

    def __init__(self, failure: Failure, *, detail: str = "", lines: tuple[str, ...] = ()) -> None:
        self.failure, self.lines = failure, lines
        self.retryable = failure.retryable
        super().__init__("\n".join(part for part in (failure.summary(), detail) if part))


class ClusterFailed(MayflyError):
    """The cluster ended in an error state before or while it was needed. A new one needs a new generation, so that no
    retry of the same step can help."""

    def __init__(self, message: str, *, failure: Failure | None = None, lines: tuple[str, ...] = ()) -> None:
        self.failure, self.lines = failure, lines
        super().__init__("\n".join(part for part in (message, failure.summary() if failure else "") if part))


class DeadlinePassed(MayflyError):
    """A step's absolute deadline, fixed in the plan, went by."""


class NotProven(MayflyError):
    """Absence of every cluster of the run could not be shown."""

    retryable = True
