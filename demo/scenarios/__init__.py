"""All scenarios, in the order in which they are shown. None depends on another, nor on what an earlier demo left."""

from demo.scenarios.admission import BAD_SPEC_REFUSED, GPU_QUOTA, RATE_LIMIT
from demo.scenarios.endings import CANCEL, DEADLINE, SIGTERM_IGNORED
from demo.scenarios.outcomes import FAILURE, OUT_OF_MEMORY, SUCCESS, THROTTLING
from demo.scenarios.stop import EMERGENCY_STOP
from demo.scenarios.trust import ABSENCE, REPLAY, RESTART
from demo.scenarios.truth import EVICTED, EVIDENCE, LOST_WORKER

SCENARIOS = (
    SUCCESS,
    OUT_OF_MEMORY,
    LOST_WORKER,
    FAILURE,
    DEADLINE,
    SIGTERM_IGNORED,
    THROTTLING,
    GPU_QUOTA,
    BAD_SPEC_REFUSED,
    RATE_LIMIT,
    CANCEL,
    REPLAY,
    RESTART,
    EVICTED,
    EVIDENCE,
    EMERGENCY_STOP,
    ABSENCE,
)
