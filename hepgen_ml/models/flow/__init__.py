"""Flow matching, with one of several velocity networks: ``NAME-cfm`` has the network NAME."""

from hepgen_ml.models.flow.settings import FlowConfig, LGATrConfig
from hepgen_ml.models.registry import register_lazily

_PLACE = "hepgen_ml.models.flow.flow_matching:FlowMatching"

for _name in ("mlp-cfm", "transformer-cfm"):
    register_lazily(_name, _PLACE, {"flow": FlowConfig})
for _name in ("gatr-cfm", "lgatr-cfm"):
    register_lazily(_name, _PLACE, {"flow": FlowConfig, "lgatr": LGATrConfig})
