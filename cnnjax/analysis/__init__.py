"""What a network costs and what it looks at."""

from cnnjax.analysis.pyramid import FeatureMap, feature_pyramid
from cnnjax.analysis.receptive_field import ReceptiveField, receptive_fields
from cnnjax.analysis.summary import Summary, summarize

__all__ = ["FeatureMap", "ReceptiveField", "Summary", "feature_pyramid", "receptive_fields", "summarize"]
