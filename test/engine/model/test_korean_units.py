"""Korean units are those of Qwen's package, which cuts by soynlp (GPL): figures taken once, and neither is needed here.

`FIGURES`: sentence | units, by qwen-asr 0.0.6 and soynlp 0.0.493.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from backend.engine.model.aligner_units import UnitSplitter, split_korean
from backend.errors import AlignerUnavailable

ROOT = Path(__file__).parents[3]
FIGURES = """
오늘은 날씨가 정말 좋네요. | 오늘 은 날씨 가 정말 좋네요
산책을 갈까요? | 산책 을 갈까요
안녕하세요, 저는 서울에 사는 대학생입니다. | 안녕 하세요 저는 서울 에 사는 대학생 입니다
어제 친구들이랑 영화를 봤는데 생각보다 재미있었어요. | 어제 친구 들이랑 영화 를 봤는데 생각 보다 재미있 었어요
이 버스는 시청역까지 갑니까? | 이 버스 는 시청 역까지 갑니까
회의는 오후 3시에 시작합니다. | 회의 는 오후 3시에 시작 합니다
3월 15일까지 보고서를 제출해 주세요. | 3월 15일까지 보고서 를 제출 해 주세요
커피 두 잔이랑 치즈케이크 하나 주세요! | 커피 두 잔이랑 치즈 케이크 하나 주세요
가격이 25,000원이라고 하던데요. | 가격 이 25000원이라고 하던데요
비가 많이 와서 길이 미끄러우니까 조심하세요. | 비가 많이 와서 길이 미끄러우니까 조심 하세요
아버지께서는 은행에서 일하십니다. | 아버지 께서는 은행 에서 일하십니다
나는 매일 아침 여섯 시에 일어난다. | 나는 매일 아침 여섯 시에 일어난다
한국어를 배운 지 벌써 2년이 되었습니다. | 한국어 를 배운 지 벌써 2년이 되었습니다
그 책은 도서관에서 빌릴 수 있어요. | 그 책은 도서관 에서 빌릴 수 있어요
지하철이 너무 복잡해서 택시를 탔어요. | 지하철 이 너무 복잡 해서 택시 를 탔어요
"내일 봐요"라고 그녀가 말했다. | 내일 봐요 라고 그녀 가 말했다
대통령은 국회에서 연설을 했습니다. | 대통령 은 국회 에서 연설 을 했습니다
정부는 새로운 경제정책을 발표했다. | 정부 는 새로운 경제 정책을 발표 했다
삼성전자의 주가가 5% 상승했습니다. | 삼성전자 의 주가 가 5 상승 했습니다
인공지능 기술이 빠르게 발전하고 있다. | 인공지능 기술 이 빠르 게 발전 하고 있다
AI 스피커로 음악을 틀어 줘. | AI 스피커로 음악 을 틀어 줘
iPhone 15를 사고 싶은데 너무 비싸요. | iPhone 15를 사고 싶은데 너무 비싸 요
유튜브에서 본 동영상이 아주 웃겼어. | 유튜브 에서 본 동영상 이 아주 웃겼어
ㅋㅋㅋ 진짜 웃기다 ㅠㅠ | ㅋㅋ ㅋ 진짜 웃기 다 ㅠㅠ
네. | 네
아니요, 괜찮습니다. | 아니요 괜찮 습니다
음... 잘 모르겠어요. | 음 잘 모르 겠어요
김치찌개랑 된장찌개 중에 뭐가 더 맛있어요? | 김치찌개 랑 된장찌개 중에 뭐가 더 맛있 어요
우리 가족은 모두 다섯 명이에요. | 우리 가족 은 모두 다섯 명이에요
동생이 태어났을 때 나는 초등학생이었다. | 동생 이 태어났 을 때 나는 초등학생 이었다
서울특별시 강남구 역삼동에 있는 회사에 다닙니다. | 서울 특별시 강남구 역삼동에 있는 회사 에 다닙니다
부산에서 제주도까지 비행기로 한 시간 걸려요. | 부산 에서 제주도 까지 비행기 로 한 시간 걸려요
시험에 합격했다니 정말 축하해요! | 시험 에 합격 했다니 정말 축하 해요
어떻게 하면 한국말을 잘할 수 있을까요? | 어떻게 하면 한국 말을 잘할 수 있을까요
운동을 하면 건강에 좋다는 것을 누구나 안다. | 운동 을 하면 건강 에 좋다는 것을 누구 나 안다
할머니께서 편찮으셔서 병원에 다녀왔어요. | 할머니 께서 편찮으셔서 병원 에 다녀왔 어요
텔레비전을 보다가 잠이 들었습니다. | 텔레비전 을 보다 가 잠이 들었습니다
눈이 내리는 겨울밤에는 따뜻한 차가 최고지. | 눈이 내리 는 겨울 밤에는 따뜻 한 차가 최고 지
그는 아무 말도 없이 방을 나가 버렸다. | 그는 아무 말도 없이 방을 나가 버렸 다
전화번호가 010-1234-5678 맞으세요? | 전화 번호가 01012345678 맞으세요
e메일 주소는 test@example.com입니다. | e메일 주소 는 testexamplecom입니다
코로나19 때문에 여행을 못 갔어요. | 코로나 19 때문 에 여행 을 못 갔어요
1990년대의 음악을 좋아하는 사람들이 많습니다. | 1990년대의 음악 을 좋아하 는 사람 들이 많습니다
국제축구연맹은 월드컵 개최지를 결정했다. | 국제 축구연맹은 월드컵 개최 지를 결정 했다
세종대왕이 훈민정음을 창제하셨습니다. | 세종 대왕이 훈민정음을 창제하셨습니다
봄·여름·가을·겨울, 사계절이 뚜렷하다. | 봄여름가을겨울 사계절 이 뚜렷 하다
"정말?" "그래, 정말이야." | 정말 그래 정말 이야
배고파 죽겠네, 빨리 먹자. | 배고파 죽겠네 빨리 먹자
선생님, 질문이 있는데요. | 선생 님 질문 이 있는데요
문을 닫아 주시겠습니까? | 문을 닫아 주시 겠습니까
고속도로에서 사고가 나서 차가 막힌다. | 고속도로 에서 사고 가 나서 차가 막힌 다
컴퓨터가 고장 나서 수리를 맡겼다. | 컴퓨터 가 고장 나서 수리 를 맡겼 다
그러니까 내 말은, 그게 아니라는 거야. | 그러니까 내 말은 그게 아니 라는 거야
학교에 가기 싫어하는 아이들이 늘어나고 있습니다. | 학교 에 가기 싫어하 는 아이 들이 늘어나 고 있습니다
환경을 보호하기 위해서 플라스틱 사용을 줄여야 합니다. | 환경 을 보호 하기 위해서 플라스틱 사용 을 줄여야 합니다
어머니가 만들어 주신 김밥이 제일 맛있다. | 어머니 가 만들 어 주신 김밥 이 제일 맛있 다
바다가 보이는 호텔에서 묵고 싶습니다. | 바다 가 보이 는 호텔 에서 묵고 싶습니다
축구선수 손흥민이 두 골을 넣었어요. | 축구 선수 손흥민 이 두 골을 넣었어요
대한민국의 수도는 서울이다. | 대한민국 의 수도 는 서울 이다
과학자들은 화성에서 물의 흔적을 찾았다고 밝혔다. | 과학자 들은 화성 에서 물의 흔적 을 찾았다고 밝혔 다
저녁노을이 아름답게 물들었습니다 | 저녁 노을이 아름답 게 물들 었습니다
띄어쓰기를하지않은문장도있습니다. | 띄어쓰기를하지않은문장도있습니다
Hello 세계, this is 한국어 test. | Hello 세계 this is 한국어 test
中國과 日本 사이에 있는 반도 | 中國과 日本 사이 에 있는 반도
값을 깎아 주시면 안 돼요? | 값을 깎아 주시 면 안 돼요
뷁뛟쀍 같은 글자는 사전에 없다. | 뷁뛟쀍 같은 글자 는 사전 에 없다
'작은따옴표'와 “큰따옴표”를 섞었다. | '작은따옴표'와 큰따옴표를 섞었다
한글날은 10월 9일이다. | 한글 날은 10월 9일이다
"""
PAIRS = [line.split(" | ") for line in FIGURES.strip().splitlines()]


@pytest.fixture(scope="module")
def splitter() -> UnitSplitter:
    return UnitSplitter()


@pytest.mark.parametrize(("sentence", "units"), PAIRS, ids=[sentence[:12] for sentence, _ in PAIRS])
def test_units_are_the_packages(splitter, sentence: str, units: str) -> None:
    assert splitter.split(sentence, "ko") == units.split()


def test_the_longest_known_beginning_is_split_off_and_a_word_without_one_stays_whole() -> None:
    words = frozenset({"가나", "가나다", "하"})
    assert list(split_korean("가나다라 가나라마바 하마바 가 가나 없는말", words)) == [
        "가나다", "라", "가나", "라마바", "하마바", "가", "가나", "없는말",
    ]  # fmt: skip


def test_without_the_dictionary_the_refusal_names_its_package(monkeypatch) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("backend.engine.model.aligner_units.distribution", missing)
    with pytest.raises(AlignerUnavailable, match="Korean needs the dictionary of the package qwen-asr"):
        UnitSplitter().split("산책을 갈까요?", "ko")


def test_nothing_of_the_package_is_imported_for_it() -> None:
    code = """
import sys
from backend.engine.model.aligner_units import UnitSplitter
assert UnitSplitter().split("산책을 갈까요?", "ko") == ["산책", "을", "갈까요"]
print(sorted({"qwen_asr", "soynlp", "sklearn", "transformers"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
