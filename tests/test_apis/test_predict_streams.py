# Copyright (c) mmseg_attn contributors.
"""Cameras and URLs as inputs, and videos that browsers play."""

import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest
from tiny_segmentor import picture

from mmseg_attn.__main__ import main
from mmseg_attn.inference.jobs import find_jobs
from mmseg_attn.video import Stream, encoders, read_video, write_video

# Codes of H.264 and VP9.
BROWSERS = (b'avc1', b'h264', b'vp09', b'vp90')


def read_frames(path):
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames


class Camera(BaseHTTPRequestHandler):
    """A network camera: ever lighter pictures, one each 20 ms."""

    def do_GET(self):
        self.send_response(200)
        kind = 'multipart/x-mixed-replace; boundary=next'
        self.send_header('Content-Type', kind)
        self.end_headers()
        count = int(self.path.rpartition('=')[2])
        for seed in range(count):
            grey = np.full((64, 64, 3), min(seed, 255), np.uint8)
            data = cv2.imencode('.jpg', grey)[1].tobytes()
            head = '--next\r\nContent-Type: image/jpeg\r\nContent-Length: '
            try:
                self.wfile.write(f'{head}{len(data)}\r\n\r\n'.encode())
                self.wfile.write(data + b'\r\n')
            except OSError:
                return
            time.sleep(0.02)

    def log_message(self, *args):
        pass


@pytest.fixture(scope='module')
def address():
    with ThreadingHTTPServer(('127.0.0.1', 0), Camera) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f'http://me:secret@127.0.0.1:{server.server_port}/live?frames='
        server.shutdown()


@pytest.fixture
def predict(trained, tmp_path):
    def run(*arguments):
        return main(
            ['predict', trained.config, trained.checkpoint, *arguments]
            + ['--out', str(tmp_path / 'out'), '--device', 'cpu']
        )

    return run


def test_so_many_frames_of_a_live_stream(predict, address, tmp_path, capsys):
    options = ['--frames', '3', '--save', 'mask', 'overlay']
    assert predict(f'{address}100000', *options) == 0
    (masks,) = (tmp_path / 'out/mask').iterdir()
    assert masks.name.startswith('127_0_0_1_')
    names = sorted(path.name for path in masks.iterdir())
    assert names == ['000000.png', '000001.png', '000002.png']
    video = tmp_path / f'out/overlay/{masks.name}.mp4'
    assert len(read_frames(video)) >= 3
    said = capsys.readouterr()
    assert 'secret' not in said.out + said.err
    for path in (tmp_path / 'out').glob('*.json'):
        assert 'secret' not in path.read_text()


def test_streams_of_one_machine_have_names_of_their_own():
    addresses = [
        f'rtsp://me:secret@cam:{port}/live?channel={channel}'
        for port in (554, 8554)
        for channel in (1, 2)
    ]
    names = {Stream(address).name for address in addresses}
    assert len(names) == 4
    assert not any('secret' in name or '.' in name for name in names)


def test_interrupt_ends_a_live_stream(predict, address, tmp_path):
    timer = threading.Timer(3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    before = signal.getsignal(signal.SIGINT)
    assert predict(f'{address}100000') == 0
    timer.join()
    assert signal.getsignal(signal.SIGINT) is before
    (path,) = (tmp_path / 'out/overlay').iterdir()
    assert len(read_frames(path)) > 1


def test_a_live_stream_is_not_behind(address):
    """One who reads slowly gets the newest frame, not the next one."""
    with read_video(Stream(f'{address}100000')) as video:
        assert video.live
        seen = []
        for frame in video:
            seen.append(frame)
            if len(seen) == 3:
                break
            time.sleep(1)
        assert video.time == pytest.approx(2000, abs=800)
    # Some 50 pictures came in each second; a queue would give the next one.
    assert np.diff([frame.mean() for frame in seen]).min() > 10


def test_a_stream_that_ends(predict, address, tmp_path):
    assert predict(f'{address}4') == 0
    assert len(list((tmp_path / 'out/overlay').iterdir())) == 1


def test_nothing_there(predict, tmp_path, capsys):
    assert predict('77', 'http://127.0.0.1:9/none.mp4') == 1
    said = ' '.join(capsys.readouterr().err.split())
    assert 'camera 77 cannot be opened: is it there' in said
    assert 'http://127.0.0.1:9/none.mp4 cannot be opened: expected' in said
    with pytest.raises(SystemExit, match='frames.*must be 1 or more'):
        predict('77', '--frames', '0')


def test_a_number_may_be_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (job,) = find_jobs(['0'], tmp_path / 'out')
    assert job.source == Stream('0') and job.overlay.name == 'camera_0.mp4'
    (tmp_path / '0').mkdir()
    cv2.imwrite('0/a.png', picture(0)[0])
    (job,) = find_jobs(['0'], tmp_path / 'out')
    assert str(job.source) == '0/a.png'


def test_frames_keep_their_time(tmp_path):
    """Between them the one before is repeated."""
    grey = [np.full((32, 32, 3), value, np.uint8) for value in (40, 120, 200)]
    with write_video(tmp_path / 'a.mp4', 10) as writer:
        for frame, time in zip(grey, (0, 0.3, 0.5), strict=True):
            writer.write(frame, time)
    shown = [round(frame.mean()) for frame in read_frames(tmp_path / 'a.mp4')]
    assert shown == pytest.approx([40, 40, 40, 120, 120, 200], abs=6)


# Stands for the program: takes what it is piped, or ends at once.
PROGRAM = """#!{python}
import sys, cv2, numpy
if '-encoders' in sys.argv:
    print(' V....D libx264    H.264')
elif {works}:
    width, height = map(int, sys.argv[sys.argv.index('-s') + 1].split('x'))
    path = sys.argv[-1].removeprefix('file:')
    code = cv2.VideoWriter_fourcc(*'mp4v')
    writer = cv2.VideoWriter(path, code, 10, (width, height))
    while data := sys.stdin.buffer.read(width * height * 3):
        frame = numpy.frombuffer(data, numpy.uint8)
        writer.write(frame.reshape(height, width, 3))
    writer.release()
    open(path + '.said', 'w').write(' '.join(sys.argv))
"""


@pytest.fixture
def program(monkeypatch, tmp_path):
    """Put a program ffmpeg, or none, where it is looked for."""

    def put(works=None):
        monkeypatch.setenv('PATH', str(tmp_path / 'bin'))
        monkeypatch.setitem(sys.modules, 'imageio_ffmpeg', None)
        for cached in caches:
            cached.cache_clear()
        if works is not None:
            (tmp_path / 'bin').mkdir()
            path = tmp_path / 'bin/ffmpeg'
            path.write_text(PROGRAM.format(python=sys.executable, works=works))
            path.chmod(0o755)
        return tmp_path / 'a.mp4'

    caches = encoders.commands, encoders.names_in, encoders.warn_once
    yield put
    for cached in caches:
        cached.cache_clear()


def write_greys(path, values=(40, 120, 200), size=(31, 47)):
    with write_video(path, 10) as writer:
        for value in values:
            writer.write(np.full((*size, 3), value, np.uint8))


def test_h264_by_ffmpeg(program):
    path = program(works=True)
    write_greys(path)
    said = path.with_name('a.mp4.said').read_text()
    assert '-c:v libx264 ' in said and '-pix_fmt yuv420p' in said
    assert '-s 48x32 -r 10 ' in said
    means = [frame.mean() for frame in read_frames(path)]
    assert means == pytest.approx([40, 120, 200], abs=6)


def test_ffmpeg_that_gives_up(program):
    path = program(works=False)
    with pytest.raises(OSError, match=str(path)):
        write_greys(path, [9] * 99, (400, 400))


def test_what_opencv_has(program, monkeypatch):
    path = program()
    write_greys(path)
    code = int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FOURCC))
    assert code.to_bytes(4, 'little').lower() in BROWSERS
    take = encoders.open_in_opencv
    monkeypatch.setattr(
        encoders,
        'open_in_opencv',
        lambda path, code, *args: code == 'mp4v' and take(path, code, *args),
    )
    with pytest.warns(UserWarning, match='MPEG-4, which browsers do not'):
        write_greys(path)
    assert len(read_frames(path)) == 3
