"""What adapters are put into besides dense weights: the low-rank branches of quantised modules.

A module whose weight nobody may write to takes the factors themselves: ``svdquant`` appends them to the 16-bit branch
that Nunchaku's kernels compute anyway, ``side_branch`` adds ``up @ (down @ x)`` to what the module returns, ``awq`` is
the same beside Nunchaku's W4A16 layers. Where a term falls is planned as for any weight: see ``terms``.
"""
