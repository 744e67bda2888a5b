"""A question as data: arms times seeds, run, compared, and answered with a verdict and its error bar."""
