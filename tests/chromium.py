# Copyright (c) mmseg_attn contributors.
"""Drive a headless Chromium over a pipe, without a package for it."""

import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
from base64 import b64decode

PROGRAM = shutil.which('chromium') or shutil.which('chromium-browser')
FLAGS = (
    '--headless',
    '--no-sandbox',  # as root it has none
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--remote-debugging-pipe',
)


class Chromium:
    """A page in a new browser, to be used as a context manager.

    Attributes:
        events: What the browser told, (name, parameters).
    """

    def __init__(self):
        self.events = []
        self._number, self._session = 0, None

    def __enter__(self):
        # DevTools' protocol: the browser reads from 3 and writes to 4.
        (reads, self._to), (self._from, writes) = os.pipe(), os.pipe()
        reads, writes = _moved(reads), _moved(writes)
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._process = subprocess.Popen(
            [
                *('bash', '-c', f'exec "$@" 3<&{reads} 4>&{writes}', 'bash'),
                *(PROGRAM, *FLAGS, f'--user-data-dir={self._folder.name}'),
                'about:blank',
            ],
            pass_fds=(reads, writes),
            stderr=subprocess.DEVNULL,
        )
        for end in (reads, writes):
            os.close(end)
        self._buffer = b''
        targets = self.call('Target.getTargets')['targetInfos']
        page = next(t for t in targets if t['type'] == 'page')
        attached = self.call(
            'Target.attachToTarget', targetId=page['targetId'], flatten=True
        )
        self._session = attached['sessionId']
        for domain in ('Page', 'Runtime', 'Network', 'Log'):
            self.call(f'{domain}.enable')
        return self

    def __exit__(self, *error):
        self._session = None
        self.call('Browser.close')
        self._process.wait(timeout=30)
        os.close(self._to)
        os.close(self._from)
        self._folder.cleanup()

    def call(self, method, **parameters):
        """Call a method of the protocol and wait for what it returns."""
        self._number += 1
        said = dict(id=self._number, method=method, params=parameters)
        if self._session:
            said['sessionId'] = self._session
        os.write(self._to, json.dumps(said).encode() + b'\0')
        while True:
            heard = self._hear()
            if heard.get('id') == self._number:
                assert 'error' not in heard, (method, heard['error'])
                return heard['result']
            self.events.append((heard.get('method'), heard.get('params')))

    def _hear(self):
        while b'\0' not in self._buffer:
            if not select.select([self._from], [], [], 60)[0]:
                self._process.kill()
            part = os.read(self._from, 1 << 20)
            assert part, 'the browser has ended, or did not answer'
            self._buffer += part
        text, _, self._buffer = self._buffer.partition(b'\0')
        return json.loads(text)

    def ask(self, script):
        """The value of a JavaScript expression, of a promise its result."""
        found = self.call(
            'Runtime.evaluate',
            expression=script,
            awaitPromise=True,
            returnByValue=True,
        )
        assert 'exceptionDetails' not in found, found['exceptionDetails']
        return found['result'].get('value')

    def open(self, path):
        """Go to a file, until its script has shown it."""
        self.call('Page.navigate', url=path.as_uri())
        self.wait("document.querySelector('main[aria-busy=false]')")

    def wait(self, condition):
        """Until an expression holds, and two frames more."""
        frame = 'await new Promise(requestAnimationFrame);'
        self.ask(
            f'(async () => {{ for (let i = 0; !({condition}); i++) {{'
            f'{frame} if (i > 600) throw Error("waited for {len(condition)}");'
            f'}} {frame}{frame} }})()'
        )

    def resize(self, width, height, *, mobile=False):
        """Take the size of a window, or of a phone with touch."""
        self.call(
            'Emulation.setDeviceMetricsOverride',
            width=width,
            height=height,
            deviceScaleFactor=2 if mobile else 1,
            mobile=mobile,
        )
        self.call('Emulation.setTouchEmulationEnabled', enabled=mobile)

    def mouse(self, kind, x, y, **more):
        """Send ``Moved``, ``Pressed`` or ``Released`` at a place."""
        self.call(
            'Input.dispatchMouseEvent', type=f'mouse{kind}', x=x, y=y, **more
        )
        self.wait('true')

    def click(self, x, y):
        """Click with the left button."""
        for kind in ('Pressed', 'Released'):
            self.mouse(kind, x, y, button='left', clickCount=1)

    def touch(self, *places):
        """Put a finger down, move it over the places and lift it."""
        for number, (x, y) in enumerate(places):
            self.call(
                'Input.dispatchTouchEvent',
                type='touchMove' if number else 'touchStart',
                touchPoints=[dict(x=x, y=y)],
            )
        self.call('Input.dispatchTouchEvent', type='touchEnd', touchPoints=[])
        self.wait('true')

    def press(self, key, shift=False):
        """Press a key."""
        for kind in ('keyDown', 'keyUp'):
            self.call(
                'Input.dispatchKeyEvent',
                type=kind,
                key=key,
                modifiers=8 * shift,
            )
        self.wait('true')

    def screenshot(self, path):
        """Save what the window shows as PNG."""
        data = self.call('Page.captureScreenshot')['data']
        path.write_bytes(b64decode(data))


def _moved(end):
    """Another number of a pipe's end, out of the way of 3 and 4."""
    number = fcntl.fcntl(end, fcntl.F_DUPFD, 10)
    os.close(end)
    return number
