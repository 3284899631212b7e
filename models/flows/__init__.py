"""Parts of normalising flows: monotone splines, coupling blocks, ActNorm."""
