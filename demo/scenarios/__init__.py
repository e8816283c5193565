"""All scenarios in display order. Each is independent of the others."""

from demo.scenarios.admission import BAD_SPEC_REFUSED, BUDGET, GPU_QUOTA, RATE_LIMIT, STRANDED_GPUS
from demo.scenarios.emergency_stop import EMERGENCY_STOP
from demo.scenarios.evidence import EVICTED, EVIDENCE, LOST_WORKER
from demo.scenarios.outcomes import FAILURE, OUT_OF_MEMORY, SUCCESS, THROTTLING
from demo.scenarios.reliability import ABSENCE, REPLAY, RESTART
from demo.scenarios.starts import TYPO
from demo.scenarios.termination import CANCEL, DEADLINE, SIGTERM_IGNORED
from demo.scenarios.training import TRAINING

SCENARIOS = (
    SUCCESS,
    OUT_OF_MEMORY,
    LOST_WORKER,
    FAILURE,
    DEADLINE,
    SIGTERM_IGNORED,
    THROTTLING,
    TRAINING,
    GPU_QUOTA,
    TYPO,
    BAD_SPEC_REFUSED,
    STRANDED_GPUS,
    BUDGET,
    RATE_LIMIT,
    CANCEL,
    REPLAY,
    RESTART,
    EVICTED,
    EVIDENCE,
    EMERGENCY_STOP,
    ABSENCE,
)
