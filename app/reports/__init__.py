"""Reports of jobs: what is in one (``document``), how it looks (``layout``, ``html``, ``pdf``), how it is
signed (``sealing``), issued (``issuing``) and checked (``verifying``)."""
