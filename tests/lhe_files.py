"""LHE files for tests: the parts of a small one, and how it is written and read."""

from __future__ import annotations

import gzip
from pathlib import Path

from hepgen_adapters.lhe import LHE
from hepgen_adapters.lhe.read import LHEReader

from hepgen_ml.events.sample import EventSample, concatenate

INIT = """<LesHouchesEvents version="3.0">
<header>
<MGVersion>3.5</MGVersion>
</header>
<init>
2212 2212 6.5e+03 6.5E+03 0 0 247000 247000 -4 2
5.0D+02 7.3e-02 1.0e+03 0
+5.7e+02 3.9e-01 1.0e+03 -7
<generator name='One &amp; only' version='1.2'>please cite</generator>
<generator name="Two" version="x"/>
</init>
"""
PARTICLES = """ 21 -1 0 0 501 502  0.000000000E+00 +0.000E+00  0.85894620092E+03 0.85E+03 0. 0. -1.
 -6  1 1 2 501 502 -.93544317D+03 -0.0  1.5 1e2 173. 0.0000e+00 9
"""
EVENT = "<event>\n 2 0 +1.0786064e+03 0.2048347E+03 0.7546771E-02 -1\n" + PARTICLES + "</event>\n"
END = "</LesHouchesEvents>\n"
GOOD = INIT + 4 * EVENT + END

WEIGHTED = f"""<event npLO=" -1 " npNLO='1'>
 2 0 1. 2. 3. 4.
{PARTICLES}#aMCatNLO 1  6  2
#rwgt            1          97   3.1447523227350588E-002
<mgrwt>
<rscale>  2 0.24387465E+02</rscale>
<pdfrwt beam="1">  1       21 0.10425685E-01 0.24387465E+02</pdfrwt>
</mgrwt>
<rwgt>
<wgt id="1001"> 0.5E+02 </wgt>
<wgt id='a &amp; b'>-1.5</wgt>
</rwgt>
<scales muf="90.1" pt_clust_1='1.0D+01'> some text </scales>
</event>
"""


def written(path: Path, text: str | bytes) -> Path:
    """The path of a file that has this text, compressed if its name says so."""
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def read(path: Path, skip_bad: bool = False, size: int = 1000) -> tuple[EventSample, LHEReader]:
    reader = LHE().open(path, skip_bad=skip_bad)
    return concatenate(list(reader.chunks(size)), reader.run), reader
