"""JetGPT: autoregressive densities, the number of jets a condition or part of the likelihood."""

from hepgen_ml.models.jetgpt.settings import JetGPTConfig, SplittingConfig
from hepgen_ml.models.registry import register_lazily

register_lazily(
    "jetgpt", "hepgen_ml.models.jetgpt.autoregressive:JetGPT", {"jetgpt": JetGPTConfig}
)
register_lazily(
    "jetgpt-splitting",
    "hepgen_ml.models.jetgpt.splitting:SplittingJetGPT",
    {"jetgpt": JetGPTConfig, "splitting": SplittingConfig},
)
