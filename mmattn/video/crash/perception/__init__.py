"""Pictures to boxes and features: detectors, backbones, tracking, box files."""
