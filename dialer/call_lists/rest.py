"""REST routes of call lists: lists, their contacts, files that are imported, and what is to be known before a launch.

For supervisors and administrators. A supervisor sees the lists of their campaigns, those that are assigned to a team or an
agent of theirs, and those that are nobody's yet. Whatever changes contacts, and every download of rows with personal
data, is in the audit trail.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

from aiohttp import web
from pydantic import AwareDatetime, BaseModel, Field, StringConstraints, model_validator

from cti import audit
from cti.openapi import SUPERVISORS, Route
from cti.people import Directory
from cti.plain_text import Plain
from cti.problems import Problem, of_refusal
from cti.rest.pages import Page, Paging, decode, encode
from cti.rest.serving import Asked, Reply, Translate
from dialer import lists
from dialer.call_lists import contacts, from_group, imports
from dialer.call_lists.before_launch import MOST_ASKED, BeforeLaunch, Judge, before_launch, contacts_of
from dialer.call_lists.columns import Guess
from dialer.call_lists.contacts import ContactFilter, ContactView, Key, Moved, RecycleAsked
from dialer.call_lists.from_group import FromGroup, GroupAsked, GroupPreview, Profiles
from dialer.call_lists.import_desk import ImportDesk, WorkerFailed
from dialer.call_lists.imports import BadRow, ImportView, NoImport, PreviewRow
from dialer.call_lists.rows import Country, ImportSettings
from dialer.call_lists.sheets import PART, Line, NotASheet, Sniffer
from dialer.call_lists.target_group import NoGroup, TargetGroups
from dialer.law.consent_lists import take_over
from dialer.lists import STRICT, Assigned, ListEdit, ListView, Name, NewList, Theirs

if TYPE_CHECKING:
    from cti.database import Pool, PoolConnection

MOST_TOLD = 100

Id = Annotated[int, Field(ge=1, lt=1 << 63)]


class OneList(BaseModel):
    """The list that the address names."""

    list: Id


class LaunchAsked(BaseModel):
    """About how many contacts that could be called the law is asked, the first ones; ten thousand take some 3 seconds."""

    model_config = STRICT

    most: int = Field(default=MOST_ASKED, ge=0, le=100_000)


class OneReason(OneList):
    """A list, and a reason as `before-launch` names it."""

    reason: Annotated[str, StringConstraints(pattern=r"^[a-z_]+(:[a-z_]+)?$", max_length=60)]


class OneImport(BaseModel):
    """The import that the address names."""

    id: Id


class ListsAsked(Paging):
    """Which lists: all, those of a campaign, the one of this name."""

    campaign: Id | None = None
    name: Annotated[str, StringConstraints(max_length=200)] | None = None


class ContactSearch(ContactFilter):
    """Which contacts: all that fit everything given; and which part of them."""

    limit: int = Field(default=100, ge=1, le=500)
    cursor: Annotated[str, StringConstraints(min_length=1, max_length=512)] | None = None


class MergeAsked(BaseModel):
    """Lists to be merged into this one. `duplicates`: contacts with the same number all stay."""

    model_config = STRICT

    lists: list[Id] = Field(min_length=1, max_length=contacts.MOST_LISTS)
    duplicates: bool = False


class SplitAsked(BaseModel):
    """Into so many `parts` of the same size, or what fits a filter into a new list of this `name`."""

    model_config = STRICT

    parts: int | None = Field(default=None, ge=2, le=contacts.MOST_PARTS)
    name: Name | None = None
    filter: ContactFilter | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> SplitAsked:
        if (self.parts is None) == (self.filter is None) or (self.filter is None) != (self.name is None):
            raise ValueError("say parts, or filter and name")
        return self


class DedupeAsked(BaseModel):
    """Within these lists taken together; the `same` number or person."""

    model_config = STRICT

    lists: list[Id] = Field(min_length=1, max_length=contacts.MOST_LISTS)
    same: Literal["number", "person"] = "number"


class ConsentsAsked(BaseModel):
    """Consents that came with the list, in the custom field `column`: a day, or yes and no, said then at `at`. How they were
    given (`source`) and for what (`purpose`, as the campaign's) says whoever takes them over."""

    model_config = STRICT

    source: Annotated[Plain, Field(min_length=1, max_length=200)]
    purpose: Annotated[Plain, Field(min_length=1, max_length=60)] = "marketing"
    column: Key = "consent"
    at: AwareDatetime | None = None
    evidence: Annotated[Plain, Field(max_length=2000)] = ""


class ConsentsOfList(BaseModel):
    """How many words were new, on record before, or no consent at all; `refused`: the first of those, by contact."""

    kept: int
    known: int
    not_kept: int
    refused: list[NotAConsent]


class NotAConsent(BaseModel):
    """A contact whose field says nothing that can be kept, and why."""

    contact: int
    why: str


class Recycled(BaseModel):
    """How many contacts are open again."""

    opened: int


class UploadAsked(BaseModel):
    """What the file is called, the country of numbers without a country code, and which sheet of a workbook."""

    model_config = STRICT

    file: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    country: Country
    sheet: Annotated[str, StringConstraints(max_length=100)] = ""


class Uploaded(BaseModel):
    """A file that is there: what its columns probably mean, `settings` to start with (null if no column looks like a phone
    number), and what would become of its first rows; and of how many that were `looked_at` how many would not be taken."""

    about: ImportView
    guess: Guess
    settings: ImportSettings | None
    preview: list[PreviewRow]
    looked_at: int
    not_taken: int


class PreviewAsked(BaseModel):
    """What would become of the first rows with these settings."""

    model_config = STRICT

    settings: ImportSettings


class Preview(BaseModel):
    """What would become of the first rows; and of how many that were `looked_at` how many would not be taken."""

    items: list[PreviewRow]
    looked_at: int
    not_taken: int


class StartAsked(BaseModel):
    """Into which list: an existing one, or a new one of this name."""

    model_config = STRICT

    list: Id | None = None
    name: Name | None = None
    settings: ImportSettings

    @model_validator(mode="after")
    def _one_of_both(self) -> StartAsked:
        if (self.list is None) == (self.name is None):
            raise ValueError("say list, or name")
        return self


class ImportsAsked(Paging):
    """Which imports: those into a list, else those that you have begun yourself; administrators see all."""

    list: Id | None = None


class BadRowsAsked(Paging):
    """Which rows: all, or those of one code."""

    code: Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,40}$")] | None = None


class BadRowsCsv(BaseModel):
    """Which rows: all, or those of one code."""

    model_config = STRICT

    code: Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,40}$")] | None = None


def routes(
    *,
    pool: Callable[[], Pool],
    directory: Directory,
    desk: ImportDesk,
    theirs: Theirs,
    law: Judge | None = None,
    profiles: Profiles = dict,
    target_groups: TargetGroups | None = None,
    largest: int = imports.LARGEST_FILE,
) -> list[Route]:
    """Returns the routes. `theirs`: which campaigns somebody oversees; `largest`: bytes of a file; `law`: what compliance
    says of contacts, by `profiles`; `target_groups`: customers by a saved query."""

    @asynccontextmanager
    async def trailed(
        asked: Asked, action: str, target: str, detail: dict[str, Any]
    ) -> AsyncIterator[PoolConnection]:
        async with pool().acquire(timeout=5) as db, db.transaction():
            yield db
            await audit.record(db, asked.who, action, target, detail, asked.request.remote)

    async def seen(asked: Asked, found: Sequence[ListView]) -> list[ListView]:
        campaigns = {view.campaign for view in found if view.campaign is not None}
        overseen = await theirs(asked.who, campaigns) if campaigns else ()

        def sees(view: ListView) -> bool:
            its = None if view.campaign is None else view.campaign in overseen
            return lists.oversees(asked.who, view.settings.assigned, directory, its)

        return [view for view in found if sees(view)]

    async def one(asked: Asked, id: int) -> ListView:
        found = await lists.read(pool(), id)
        if not await seen(asked, [found]):
            raise lists.NoList
        return found

    async def given_to(asked: Asked, campaign: int | None) -> None:
        """Whether lists may be given to this campaign is for whoever oversees it."""
        if campaign is not None and not await theirs(asked.who, [campaign]):
            raise lists.NotPossible("no_campaign", "there is no such campaign, or it is not one of yours")

    async def many(asked: Asked, ids: list[int]) -> None:
        for id in ids:
            await one(asked, id)

    def version(asked: Asked) -> int:
        match = asked.match or ""
        if not match.isdecimal() or len(match) > 9:
            raise lists.ChangedMeanwhile
        return int(match)

    # ------------------------------------------------------------------------------------------ lists

    async def list_all(asked: Asked) -> dict[str, Any]:
        wanted: ListsAsked = asked.query
        after = decode(wanted.cursor, str) if wanted.cursor else ""
        found = await lists.all_lists(
            pool(), after=after, limit=wanted.limit + 1, campaign=wanted.campaign, name=wanted.name
        )
        part = found[: wanted.limit]
        more = encode(part[-1].name) if len(found) > len(part) else None
        return {"items": await seen(asked, part), "next": more}

    async def list_create(asked: Asked) -> Reply:
        new: NewList = asked.body
        if not lists.oversees(asked.who, new.settings.assigned, directory):
            raise Problem(403, "forbidden", "assign the list to a team or agents of yours, or to nobody yet")
        lists.must_be_known(new.settings.assigned, Assigned(), directory.agents, directory.teams)
        await given_to(asked, new.campaign)
        async with trailed(asked, "list.created", new.name, {}) as db:
            made = await lists.create(db, new, asked.who.login)
        return Reply(value=made, version=made.version, headers={"Location": f"/api/v1/lists/{made.id}"})

    async def list_read(asked: Asked) -> Reply:
        found = await one(asked, asked.params.list)
        return Reply(value=found, version=found.version)

    async def list_change(asked: Asked) -> Reply:
        edit: ListEdit = asked.body
        found = await one(asked, asked.params.list)
        if edit.campaign != found.campaign:
            await given_to(asked, edit.campaign)
        if edit.settings is not None and (to := edit.settings.assigned) != (
            before := found.settings.assigned
        ):
            if not lists.oversees(asked.who, to, directory):
                raise Problem(403, "forbidden", "assign the list to a team or agents of yours, or to nobody")
            lists.must_be_known(to, before, directory.agents, directory.teams)
        fields = {"fields": sorted(edit.model_fields_set)}
        async with trailed(asked, "list.changed", str(asked.params.list), fields) as db:
            changed = await lists.change(
                db, asked.params.list, edit, version=version(asked), by=asked.who.login
            )
        return Reply(value=changed, version=changed.version)

    async def list_delete(asked: Asked) -> None:
        found = await one(asked, asked.params.list)
        detail: dict[str, Any] = {"name": found.name}
        async with trailed(asked, "list.deleted", str(found.id), detail) as db:
            detail["contacts"] = await lists.delete(db, found.id, version=version(asked))

    async def list_contacts(asked: Asked) -> dict[str, Any]:
        wanted: ContactSearch = asked.body
        await one(asked, asked.params.list)
        after = decode(wanted.cursor, int) if wanted.cursor else 0
        fits = ContactFilter(**wanted.model_dump(exclude={"limit", "cursor"}))
        found = await contacts.page(pool(), asked.params.list, fits, after=after, limit=wanted.limit + 1)
        return _page(found, wanted.limit, lambda row: row.id)

    async def list_merge(asked: Asked) -> Moved:
        wanted: MergeAsked = asked.body
        await many(asked, [asked.params.list, *wanted.lists])
        async with trailed(asked, "list.merged", str(asked.params.list), {"lists": wanted.lists}) as db:
            return await contacts.merge(
                db,
                asked.params.list,
                wanted.lists,
                version=version(asked),
                by=asked.who.login,
                duplicates=wanted.duplicates,
            )

    async def list_split(asked: Asked) -> Moved:
        wanted: SplitAsked = asked.body
        id, by = asked.params.list, asked.who.login
        await one(asked, id)
        detail: dict[str, Any] = {"parts": wanted.parts, "name": wanted.name}
        async with trailed(asked, "list.split", str(id), detail) as db:
            if wanted.parts is not None:
                moved = await contacts.split_evenly(db, id, wanted.parts, version=version(asked), by=by)
            else:
                assert wanted.filter is not None
                assert wanted.name is not None
                moved = await contacts.split_off(
                    db, id, wanted.filter, wanted.name, version=version(asked), by=by
                )
            detail |= {"moved": moved.moved, "lists": list(moved.lists)}
        return moved

    async def list_dedupe(asked: Asked) -> Moved:
        wanted: DedupeAsked = asked.body
        await many(asked, wanted.lists)
        detail: dict[str, Any] = {"lists": wanted.lists, "same": wanted.same}
        async with trailed(asked, "list.deduped", str(wanted.lists[0]), detail) as db:
            moved = await contacts.dedupe(db, wanted.lists, same=wanted.same, by=asked.who.login)
            detail["removed"] = moved.removed
        return moved

    async def list_recycle(asked: Asked) -> Recycled:
        wanted: RecycleAsked = asked.body
        id = asked.params.list
        await one(asked, id)
        detail: dict[str, Any] = {"outcomes": wanted.outcomes}
        async with trailed(asked, "list.recycled", str(id), detail) as db:
            opened = await contacts.recycle(
                db, id, wanted.outcomes, version=version(asked), by=asked.who.login
            )
            detail["opened"] = opened
        return Recycled(opened=opened)

    async def list_consents(asked: Asked) -> ConsentsOfList:
        wanted: ConsentsAsked = asked.body
        id = asked.params.list
        await one(asked, id)
        if wanted.at is not None and not 1990 <= wanted.at.year <= 9000:
            raise Problem(422, "bad_value", "at: a time in the past, after 1990")
        taken = await take_over(
            pool(), id, source=wanted.source, purpose=wanted.purpose, column=wanted.column, at=wanted.at,
            evidence=wanted.evidence, by=asked.who.login,
        )  # fmt: skip
        detail = {"list": id, "kept": taken.kept, "known": taken.known, "source": wanted.source}
        await audit.record(pool(), asked.who, "consent.imported", "dialer", detail, asked.request.remote)
        refused = [NotAConsent(contact=row.line, why=row.why) for row in taken.refused[:MOST_TOLD]]
        return ConsentsOfList(kept=taken.kept, known=taken.known, not_kept=taken.not_kept, refused=refused)

    async def list_launch(asked: Asked) -> BeforeLaunch:
        wanted: LaunchAsked = asked.query
        await one(asked, asked.params.list)
        return await before_launch(pool(), asked.params.list, law, most=wanted.most)

    async def list_reason(asked: Asked) -> dict[str, Any]:
        wanted: Paging = asked.query
        await one(asked, asked.params.list)
        after = decode(wanted.cursor, int) if wanted.cursor else 0
        found = await contacts_of(
            pool(), asked.params.list, asked.params.reason, law, after=after, limit=wanted.limit + 1
        )
        return _page(found, wanted.limit, lambda row: row.id)

    # ---------------------------------------------------------------------------------------- imports

    async def import_of(asked: Asked) -> ImportView:
        view = await imports.read(pool(), asked.params.id)
        if view.list is None:
            if not asked.who.is_admin and view.created_by != asked.who.login:
                raise NoImport
        elif not await seen(asked, [await lists.read(pool(), view.list)]):
            raise NoImport
        return view

    async def import_all(asked: Asked) -> dict[str, Any]:
        wanted: ImportsAsked = asked.query
        if wanted.list is not None:
            await one(asked, wanted.list)
        by = None if wanted.list is not None or asked.who.is_admin else asked.who.login
        before = decode(wanted.cursor, int) if wanted.cursor else None
        found = await imports.of_list(pool(), wanted.list, by=by, before=before, limit=wanted.limit + 1)
        return _page(found, wanted.limit, lambda row: row.id)

    async def import_upload(asked: Asked) -> Reply:
        wanted: UploadAsked = asked.query
        id = await imports.begin(pool(), wanted.file, asked.who.login)
        try:
            view = await _received(asked, id, wanted)
            shown = await _shown(view, wanted.country)
            detail = {"file": wanted.file, "bytes": view.bytes}
            await audit.record(
                pool(), asked.who, "list_import.uploaded", str(id), detail, asked.request.remote
            )
        except BaseException:
            await imports.forget(pool(), id)
            raise
        return Reply(value=shown, headers={"Location": f"/api/v1/list-imports/{id}"})

    async def _received(asked: Asked, id: int, wanted: UploadAsked) -> ImportView:
        sniffer, part, waiting = Sniffer(), 0, bytearray()
        async for chunk in asked.request.content.iter_any():
            waiting += chunk
            if sniffer.size + len(waiting) > largest:
                raise Problem(413, "too_large", f"a file holds at most {largest >> 20} MiB: split it")
            while len(waiting) >= PART:
                content, waiting = bytes(waiting[:PART]), waiting[PART:]
                sniffer.feed(content)
                await imports.add_part(pool(), id, part, content)
                part += 1
        if waiting:
            sniffer.feed(bytes(waiting))
            await imports.add_part(pool(), id, part, bytes(waiting))
        how, size = sniffer.format, sniffer.size
        if sniffer.is_workbook:
            how, size = await desk.unpack(id, wanted.sheet)
        return await imports.uploaded(pool(), id, how, size)

    async def _shown(view: ImportView, country: str) -> Uploaded:
        lines = await imports.sample(pool(), view)
        guessed, settings = imports.guess_settings(lines, country)
        shown = _preview(lines, settings) if settings else Preview(items=[], looked_at=0, not_taken=0)
        return Uploaded(
            about=view,
            guess=guessed,
            settings=settings,
            preview=shown.items,
            looked_at=shown.looked_at,
            not_taken=shown.not_taken,
        )

    async def import_preview(asked: Asked) -> Preview:
        wanted: PreviewAsked = asked.body
        view = await import_of(asked)
        if view.state != "ready":
            raise lists.NotPossible(
                "wrong_state", f"this import is {view.state}: its file is no longer looked at"
            )
        return _preview(await imports.sample(pool(), view), wanted.settings)

    async def import_start(asked: Asked) -> Reply:
        wanted: StartAsked = asked.body
        view = await import_of(asked)
        if wanted.list is not None:
            await one(asked, wanted.list)
        detail = {"file": view.file, "columns": wanted.settings.columns, "country": wanted.settings.country}
        async with trailed(asked, "list_import.started", str(view.id), detail) as db:
            target = await _target(db, asked, wanted.list, wanted.name)
            view = await imports.start(db, view.id, target, wanted.settings)
        desk.wake()
        return Reply(value=view, status=202)

    async def _target(
        db: PoolConnection, asked: Asked, id: int | None, name: str | None, campaign: int | None = None
    ) -> int:
        if id is not None:
            return id
        assert name is not None
        return (await lists.create(db, NewList(name=name, campaign=campaign), asked.who.login)).id

    async def groups_for(asked: Asked, wanted: GroupAsked) -> TargetGroups:
        """The target groups; the list that is meant must be one that they may see."""
        if target_groups is None:
            raise Problem(503, "unavailable", "there are no target groups on this server")
        if wanted.list is not None:
            await one(asked, wanted.list)
        await given_to(asked, wanted.campaign)
        return target_groups

    async def group_preview(asked: Asked) -> GroupPreview:
        wanted: GroupAsked = asked.body
        return await from_group.preview(pool(), await groups_for(asked, wanted), wanted, profiles)

    async def import_group(asked: Asked) -> Reply:
        wanted: FromGroup = asked.body
        groups = await groups_for(asked, wanted)
        id, settings, campaign = await from_group.upload(pool(), groups, wanted, profiles, asked.who.login)
        try:
            detail = {"group": wanted.group, "campaign": campaign}
            async with trailed(asked, "list_import.started", str(id), detail) as db:
                target = await _target(db, asked, wanted.list, wanted.name, campaign)
                view = await imports.start(db, id, target, settings)
        except BaseException:
            await imports.forget(pool(), id)
            raise
        desk.wake()
        return Reply(value=view, status=202)

    async def import_drop(asked: Asked) -> None:
        view = await import_of(asked)
        if view.state != "ready":
            raise lists.NotPossible("wrong_state", f"this import is {view.state}: cancel it, or undo it")
        async with trailed(asked, "list_import.dropped", str(view.id), {"file": view.file}) as db:
            await imports.forget(db, view.id)

    async def import_cancel(asked: Asked) -> ImportView:
        view = await import_of(asked)
        async with trailed(asked, "list_import.cancelled", str(view.id), {}) as db:
            return await imports.cancel(db, view.id)

    async def import_undo(asked: Asked) -> ImportView:
        view = await import_of(asked)
        detail: dict[str, Any] = {}
        async with trailed(asked, "list_import.undone", str(view.id), detail) as db:
            undone = await imports.undo(db, view.id, asked.who.login)
            detail |= {"removed": undone.removed, "stayed": undone.stayed}
        return undone

    async def bad_rows_read(asked: Asked, view: ImportView) -> None:
        action = "list_import.bad_rows_read"
        await audit.record(pool(), asked.who, action, str(view.id), {}, asked.request.remote)

    async def bad_rows(asked: Asked) -> dict[str, Any]:
        wanted: BadRowsAsked = asked.query
        view = await import_of(asked)
        after = decode(wanted.cursor, int) if wanted.cursor else 0
        if not after:
            await bad_rows_read(asked, view)
        found = await imports.bad_rows(pool(), view.id, after=after, limit=wanted.limit + 1, code=wanted.code)
        return _page(found, wanted.limit, lambda row: row.row)

    async def bad_rows_csv(asked: Asked) -> web.StreamResponse:
        wanted: BadRowsCsv = asked.query
        view = await import_of(asked)
        await bad_rows_read(asked, view)
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/csv; charset=utf-8",
                "Content-Disposition": f'attachment; filename="import-{view.id}-not-taken.csv"',
                "X-Content-Type-Options": "nosniff",
                "Cache-Control": "no-store",
            }
        )
        await response.prepare(asked.request)
        if asked.request.method != "HEAD":
            async for part in imports.bad_rows_csv(pool(), view, code=wanted.code):
                await response.write(part)
        await response.write_eof()
        return response

    base, files, away = "/api/v1/lists", "/api/v1/list-imports", frozenset({503})

    def route(
        method: str, path: str, handler: Callable[[Asked], Awaitable[Any]], summary: str, **more: Any
    ) -> Route:
        tag = "Imports of lists" if path.startswith(files) else "Lists"
        more = {"roles": SUPERVISORS, "errors": away, **more}
        return Route(method=method, path=path, handler=handler, summary=summary, tag=tag, **more)

    of_list, of_import = {"params": OneList}, {"params": OneImport}
    conflict = {"errors": away | {409}, "versioned": True}
    return [
        route("GET", base, list_all, "Call lists, by name.", query=ListsAsked, result=Page[ListView]),
        route(
            "POST", base, list_create, "A new list, empty.", body=NewList, result=ListView, status=201, idempotent=True
        ),
        route("POST", base + "/dedupe", list_dedupe, "Removes duplicates within and across lists.", body=DedupeAsked,
              result=Moved, errors=away | {404}),
        route("GET", base + "/{list}", list_read, "One list, its state as counts.", result=ListView, **of_list),
        route("PATCH", base + "/{list}", list_change, "Changes a list: name, campaign, priority, script, settings.",
              body=ListEdit, result=ListView, **of_list, **conflict),
        route("DELETE", base + "/{list}", list_delete, "Deletes a list with its contacts; attempts stay.", status=204,
              **of_list, **conflict),
        route("POST", base + "/{list}/contacts/search", list_contacts, "Its contacts that fit.", body=ContactSearch,
              result=Page[ContactView], **of_list),
        route("POST", base + "/{list}/merge", list_merge, "Merges other lists into this one.", body=MergeAsked,
              result=Moved, **of_list, **conflict),
        route("POST", base + "/{list}/split", list_split, "Splits a list evenly, or what fits a filter off.",
              body=SplitAsked, result=Moved, **of_list, **conflict),
        route("POST", base + "/{list}/recycle", list_recycle, "Calls used-up contacts again.", body=RecycleAsked,
              result=Recycled, **of_list, **conflict),
        route("POST", base + "/{list}/consents", list_consents, "Keeps the consents that came with the list.",
              body=ConsentsAsked, result=ConsentsOfList, **of_list),
        route("GET", base + "/{list}/before-launch", list_launch, "Who can be called, who not, and why.",
              query=LaunchAsked, result=BeforeLaunch, **of_list),
        route("GET", base + "/{list}/before-launch/{reason}", list_reason, "The contacts that a reason holds for.",
              params=OneReason, query=Paging, result=Page[ContactView]),
        route("GET", files, import_all, "Imports, the newest first.", query=ImportsAsked, result=Page[ImportView],
              errors=away | {404}),
        route("POST", files, import_upload, "Sends a file, CSV or Excel, as it is: what it holds, and a preview.",
              query=UploadAsked, takes="application/octet-stream", result=Uploaded, status=201),
        route("POST", files + "/from-target-group", import_group, "Imports a target group of customers.",
              body=FromGroup, result=ImportView, status=202, errors=away | {404, 409}),
        route("POST", files + "/from-target-group/preview", group_preview,
              "What a target group would give: consent, do-not-call lists, duplicates.", body=GroupAsked,
              result=GroupPreview, errors=away | {404, 409}),
        route("GET", files + "/{id}", import_of, "One import and how far it is.", result=ImportView,
              **of_import),
        route("POST", files + "/{id}/preview", import_preview, "The first rows with other settings.",
              body=PreviewAsked, result=Preview, **of_import),
        route("POST", files + "/{id}/start", import_start, "Starts the import.", body=StartAsked, result=ImportView,
              status=202, **of_import),
        route("DELETE", files + "/{id}", import_drop, "Drops a file that has not been started.", status=204,
              **of_import, errors=away | {409}),
        route("POST", files + "/{id}/cancel", import_cancel, "Ends it where it is; undo takes out what is in.",
              result=ImportView, **of_import),
        route("POST", files + "/{id}/undo", import_undo, "Takes its contacts out again, but who has been called.",
              result=ImportView, **of_import),
        route("GET", files + "/{id}/bad-rows", bad_rows, "Rows that were not taken, and why.", query=BadRowsAsked,
              result=Page[BadRow], **of_import),
        route("GET", files + "/{id}/bad-rows.csv", bad_rows_csv, "The same to be repaired and imported again.",
              query=BadRowsCsv, raw="text/csv", **of_import),
    ]  # fmt: skip


def _preview(lines: Sequence[Line], settings: ImportSettings) -> Preview:
    rows = imports.preview(lines, settings, imports.SAMPLE)
    bad = sum(bool(row.why_not) for row in rows)
    return Preview(items=rows[: imports.SHOWN], looked_at=len(rows), not_taken=bad)


def _page(found: list[Any], limit: int, key: Callable[[Any], int]) -> dict[str, Any]:
    part = found[:limit]
    return {"items": part, "next": encode(key(part[-1])) if len(found) > len(part) else None}


TRANSLATE: dict[type[Exception], Translate] = {
    lists.NoList: lambda _error: Problem(
        404, "not_found", "there is no such list, or it is not one of yours"
    ),
    NoImport: lambda _error: Problem(404, "not_found", "there is no such import, or it is not one of yours"),
    lists.ChangedMeanwhile: lambda _error: Problem(
        412, "changed_meanwhile", "somebody else has changed the list: read it again"
    ),
    lists.NameTaken: lambda error: Problem(409, "name_taken", str(error)),
    lists.NotPossible: of_refusal,
    NoGroup: lambda error: Problem(404, "not_found", str(error)),
    NotASheet: lambda error: Problem(422, "not_a_sheet", str(error)),
    WorkerFailed: lambda _error: Problem(
        503, "unavailable", "the file could not be read just now: try again"
    ),
}
"""What is refused over REST, in its words; for `application(translate=...)`."""


__all__ = ["TRANSLATE", "Key", "routes"]
