"""Dead letters in Django's admin: list, look, send again, bury, wipe.

Owns the requests, and who may do what: Django's own permissions of the model. Every button is a POST with Django's
token; each is written into the admin's log. What is shown of a message is text, never markup.
"""

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.translation import ngettext

from dropr_core.api.node import Node
from dropr_core.errors import DroprError
from dropr_django import letters
from dropr_django.models import DeadLetter
from dropr_django.opened import node_of_this_process

STATES = (("", "all that ended badly"), *((name, name) for name in letters.DEAD), ("waiting", "waiting here"))


@admin.register(DeadLetter)
class DeadLetterAdmin(admin.ModelAdmin):  # type: ignore[misc]  # Django has no types
    """The pages."""

    def get_urls(self) -> list[Any]:
        """The list, and one message."""
        view = self.admin_site.admin_view
        name = "dropr_django_deadletter"
        return [
            path("", view(self.changelist_view), name=f"{name}_changelist"),
            path("<uuid:identity>/", view(self.look_view), name=f"{name}_change"),
        ]

    def has_add_permission(self, _request: HttpRequest) -> bool:
        """Messages are sent by programs."""
        return False

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """GET lists, POST acts on those that are chosen."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        node = node_of_this_process()
        if request.method == "POST":
            return self._act(request, node, request.POST.getlist("letter"))
        query = _query(request)
        try:
            listing, channels = letters.find(node, query), letters.channels_of(node)
        except DroprError as error:
            messages.error(request, str(error))
            listing, channels = letters.Listing((), more=False, whole=True), []
        return self._page(
            request, "list", f"Dead letters of {node.name}", query=query, listing=listing, channels=channels,
            peers=sorted(node.config.peers), states=STATES, back=_link(request, query.page - 1),
            on=_link(request, query.page + 1), **(extra_context or {}),
        )  # fmt: skip

    def look_view(self, request: HttpRequest, identity: Any) -> HttpResponse:
        """One message."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        node = node_of_this_process()
        if request.method == "POST":
            return self._act(request, node, request.POST.getlist("letter"))
        letter = letters.look(node, str(identity))
        if letter is None:
            messages.warning(request, f"Message {identity} is not known here any more.")
            return HttpResponseRedirect(_list_url(self))
        return self._page(request, "letter", f"Message {identity}", letter=letter)

    # ── buttons ──────────────────────────────────────────────────────────────────────────────────

    def _act(self, request: HttpRequest, node: Node, tokens: list[str]) -> HttpResponse:
        here = HttpResponseRedirect(request.get_full_path())
        reason = request.POST.get("reason", "").strip()[:500] or f"buried by {request.user.get_username()}"
        acts: dict[str, tuple[Callable[[HttpRequest], bool], Callable[[], int], str]] = {
            "again": (self.has_change_permission, lambda: letters.send_again(node, tokens), "sent again"),
            "bury": (self.has_change_permission, lambda: letters.bury(node, tokens, reason), "buried"),
            "wipe": (self.has_delete_permission, lambda: letters.wipe(node, tokens), "wiped"),
        }
        chosen = acts.get(request.POST.get("action", ""))
        if chosen is None:
            messages.warning(request, "Nothing was done: no action was chosen.")
            return here
        may, does, word = chosen
        if not may(request):
            raise PermissionDenied
        if not tokens:
            messages.warning(request, "Nothing was done: no message was chosen.")
            return here
        try:
            count = does()
        except DroprError as error:
            messages.error(request, str(error))
            return here
        if count:
            for token in tokens:
                self.log_change(request, DeadLetter(pk=letters.id_of(token)[:36]), [{"changed": {"fields": [word]}}])
            text = ngettext("%(count)d message is %(word)s.", "%(count)d messages are %(word)s.", count)
            messages.success(request, text % {"count": count, "word": word})
        else:
            messages.warning(request, f"Nothing was {word}: none of them stands so that it can be.")
        return HttpResponseRedirect(_list_url(self)) if word == "wiped" else here

    def _page(self, request: HttpRequest, name: str, title: str, **more: Any) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request), "opts": self.opts, "title": title,
            "may_change": self.has_change_permission(request), "may_delete": self.has_delete_permission(request),
            **more,
        }  # fmt: skip
        request.current_app = self.admin_site.name
        return TemplateResponse(request, f"dropr_django/{name}.html", context)


def _query(request: HttpRequest) -> letters.Query:
    page = request.GET.get("page", "1")
    number = int(page) if page.isascii() and page.isdigit() and len(page) < 7 else 1
    words = {name: request.GET.get(name, "")[:300] for name in ("state", "channel", "peer")}
    return letters.Query(**words, words=request.GET.get("q", "")[:300], page=max(1, number))


def _link(request: HttpRequest, page: int) -> str:
    query = request.GET.copy()
    query["page"] = str(page)
    return f"?{query.urlencode()}"


def _list_url(model_admin: DeadLetterAdmin) -> str:
    url: str = reverse("admin:dropr_django_deadletter_changelist", current_app=model_admin.admin_site.name)
    return url
