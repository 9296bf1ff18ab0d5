"""Why a device is not found or not usable, in plain words, and what to do."""

from __future__ import annotations

from actors.doctor.examination import examine as examine
from actors.doctor.finding import Finding as Finding
