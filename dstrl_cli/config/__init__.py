"""What a run is: models, values, methods, presets, sizes. Imports neither torch nor gymnasium."""
