"""Side-by-side measurements. Each prints one JSON object: ours, rival, ratio, spread, machine."""
