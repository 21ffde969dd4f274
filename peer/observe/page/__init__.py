"""The pages for a browser, of one peer and of a swarm: their files, and who may ask for what.

There is no build step and no framework: `assets` holds HTML, one style sheet and ES modules, and
uPlot for the charts. Nothing here knows a supervisor or an exporter; they give the JSON.
"""
