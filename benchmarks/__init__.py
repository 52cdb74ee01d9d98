"""Speed and accuracy of skspec.

Modules `forward`, `preprocessing` and `datasets` are in asv's shape (``asv run`` reads them with
``benchmarks/asv.conf.json``). `slam_speed`, `cannon_speed` and `accuracy` compare with other
software and print tables: ``python -m benchmarks``. Results are in ``benchmarks/README.rst``.
"""
