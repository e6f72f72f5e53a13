"""Runs notebooks of the chapters, and keeps in them what readers see: results, but no warnings and no times of cells.

    python docs/results/notebook.py chapters/ch5_carry_over.ipynb    # needs `pip install -e '.[notebooks]'`
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    import nbformat
    from nbclient import NotebookClient

    for path in map(Path, sys.argv[1:]):
        notebook = nbformat.read(path, as_version=4)
        resources = {"metadata": {"path": path.parent}}
        NotebookClient(notebook, timeout=600, record_timing=False, resources=resources).execute()
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        nbformat.write(notebook, path)
