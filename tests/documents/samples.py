"""Documents to upload."""

from collections.abc import Sequence

BOOK = "\n\n".join(
    f"Chapter {n}\n\n"
    + " ".join(f"Sentence {n}.{k} of the chapter speaks of topic{n % 7} at length." for k in range(40))
    for n in range(12)
).encode()

MARKDOWN = b"""# Rigging

A *sloop* has one mast.

## Sails

- main
- jib

```python
# not a heading
hoist("main")
```
"""

HTML = b"""<!doctype html><html><head><title> Boats </title><style>p { color: red }</style></head>
<body><h1>All <b>boats</b></h1><p>A sloop has
one mast.<script>alert(1)</script><ul><li>a ketch<li>a yawl</ul>
<table><tr><th>name</th><th>masts</th></tr><tr><td>sloop</td><td>1</td></tr></table></body></html>"""


def pdf(pages: Sequence[str], title: str = "") -> bytes:
    """A PDF with a text on each page (PDF 1.4, ISO 32000)."""
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, text in enumerate(pages):
        shown = " ".join(f"({line}) Tj T*" for line in text.split("\n"))
        stream = f"BT /F1 12 Tf 72 720 Td 14 TL {shown} ET"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * number} 0 R"
            " /Resources << /Font << /F1 3 0 R >> >> >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    objects.append(f"<< /Title ({title}) >>")
    return assemble(objects)


def assemble(objects: Sequence[str], trailer: str = "") -> bytes:
    """Return a PDF of ``objects``; the first is its root, the last its information."""
    out, offsets = b"%PDF-1.4\n", []
    for number, one in enumerate(objects, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{one}\nendobj\n".encode()
    start = len(out)
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}".encode()
    end = f"<< /Size {len(objects) + 1} /Root 1 0 R /Info {len(objects)} 0 R {trailer}>>"
    return out + f"trailer\n{end}\nstartxref\n{start}\n%%EOF\n".encode()
