"""Call control: what agents and supervisors do with a call, carried out on the PBX and answered with what came of it."""
