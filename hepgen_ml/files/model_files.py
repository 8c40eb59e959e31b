"""Names of the files in the directory of a trained model."""

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
CARD = "README.md"
VALIDATION = "validation.json"
CLASSIFIER = "classifier.safetensors"
VARIATIONS = "variations.safetensors"
