"""`dstrl bench`: how fast dstrl trains, updates and acts, beside other libraries in the same call.

`plan` says what is measured, `measure` carries it out in processes of their own (`worker`, which
runs `work` or `peers`), `show` and `plot` present it. No other part of dstrl imports this package.
"""
