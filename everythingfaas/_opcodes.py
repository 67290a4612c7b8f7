"""What the instructions of each Python's code objects look like. Made by tools/opcode_tables.py: edit that.

`kinds` has a letter for each opcode, which says what its argument is:

    blank  no instruction        .  no argument         e  EXTENDED_ARG             o  anything
    c      constant              n  name                N  name, times 2            S  name, times 4
    l      local variable        L  two of them         f  variable of a closure    C  comparison
    r      jump forward          b  jump backward       a  jump

`caches` has the number of cache entries behind each, as a hexadecimal digit; `head` the instructions that a code
object of 3.11 and newer begins with; in `jump_unit` bytes a jump counts; `limits` are the largest arguments;
`compares` those of comparisons; and one of `ends` stands at the end.
"""

from __future__ import annotations

from typing import Any

TABLES: dict[tuple[int, int], dict[str, Any]] = {
    (3, 8): {
        "caches": "",
        "compares": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
        "ends": [83, 88, 110, 113, 130],
        "head": {},
        "jump_unit": 1,
        "kinds": (
            " ......  ....  ... .. ........                    ........ ....."
            ".......... ..... .........nnoronnnn cnoooonCnnraaaaan     r lll "
            "  oooo ffff  ooreooofoooooroooo noro                            "
            "                                                                "
        ),
        "limits": {130: 2, 155: 7, 133: 3, 132: 15, 73: 2},
    },
    (3, 9): {
        "caches": "",
        "compares": [0, 1, 2, 3, 4, 5],
        "ends": [48, 83, 110, 113, 130],
        "head": {},
        "jump_unit": 1,
        "kinds": (
            " ......  ....  ... .. ........                  ..... .... ....."
            "................  ...... .nnoronnnn cnoooonCnnraaaaanoo  ar lll "
            "  oooo ffff  ooreooof     rooo  nooooo                          "
            "                                                                "
        ),
        "limits": {130: 2, 117: 1, 118: 1, 155: 7, 133: 3, 132: 15, 73: 2, 48: 2},
    },
    (3, 10): {
        "caches": "",
        "compares": [0, 1, 2, 3, 4, 5],
        "ends": [83, 110, 113, 119, 130],
        "head": {},
        "jump_unit": 2,
        "kinds": (
            " oooooo  oooo  ooo oo ooooooooooooo              oooo oooo ooooo"
            "oooooooooooooooo  oooooo onnoronnnnocnoooonCnnraaaaanooo ar lll "
            " ooooo ffff  ooreooof   o rooo  nooooo                          "
            "                                                                "
        ),
        "limits": {130: 2, 117: 1, 118: 1, 155: 7, 129: 2, 133: 3, 132: 15, 73: 2, 119: 2},
    },
    (3, 11): {
        "caches": (
            "0000000000000000000000000400000000000000000000000000000000001000"
            "0000000000000000000000000000100400000000004200000000500000100000"
            "00000000000000000000000000000000a00000100004"
        ),
        "compares": [0, 1, 2, 3, 4, 5],
        "ends": [83, 110, 119, 130, 134, 140],
        "head": {
            "RESUME": 151,
            "COPY_FREE_VARS": 149,
            "MAKE_CELL": 135,
            "RETURN_GENERATOR": 75,
            "POP_TOP": 1,
            "EXTENDED_ARG": 144,
        },
        "jump_unit": 2,
        "kinds": (
            " oo      oooo  o         o    oooo ooo           oooooo     oo  "
            "    oooo  oo      oooooooonnoronnnnocnoooonCnnrrr rrNoooo orlll "
            "rroooobfffffb o eooofo oo  ooo  n ooooo    ocbbbb               "
            "                                                                "
        ),
        "limits": {130: 2, 117: 1, 118: 1, 155: 7, 133: 3, 132: 15, 131: 2, 119: 2, 151: 3, 122: 25},
    },
    (3, 12): {
        "caches": (
            "0000000000000000000000000100000000000000000000000000000000001000"
            "0000000000000000000000000000110400000000009100000000400000110000"
            "00000000000001000000000000000000000000000003"
        ),
        "compares": [2, 26, 40, 55, 68, 92],
        "ends": [83, 110, 119, 121, 130, 134, 140],
        "head": {
            "RESUME": 151,
            "COPY_FREE_VARS": 149,
            "MAKE_CELL": 135,
            "RETURN_GENERATOR": 75,
            "POP_TOP": 1,
            "EXTENDED_ARG": 144,
        },
        "jump_unit": 2,
        "kinds": (
            " .. ..   . ..  .         ...  .... ...           .......    ..  "
            "    .. .  ..       . . . .nnoronnnnocnooooNCnnr   rrNoooocorllll"
            "rroooobfffffbSoleooo oooo  ooo    oooo     ocoonf               "
            "                                                                "
        ),
        "limits": {130: 2, 117: 1, 118: 1, 155: 7, 133: 3, 132: 15, 131: 2, 119: 2, 151: 3, 122: 25, 173: 11, 174: 4},
    },
    (3, 13): {
        "caches": (
            "0000010000000000000000000000000000000001300001000000030000110000"
            "000000001000010000900000000401000111100010004000000001"
        ),
        "compares": [2, 18, 42, 58, 72, 88, 103, 119, 132, 148, 172, 188],
        "ends": [36, 77, 78, 79, 101, 102, 103],
        "head": {
            "RESUME": 149,
            "COPY_FREE_VARS": 62,
            "MAKE_CELL": 94,
            "RETURN_GENERATOR": 35,
            "POP_TOP": 32,
            "EXTENDED_ARG": 71,
        },
        "jump_unit": 2,
        "kinds": (
            " .. ............. .... ......................oooooooooooooCoooon"
            "flnnoo eronnobbrooNcflllLfnNnSfoorrrroocrooonflLLnnoooo         "
            "                     o                                          "
            "                                                                "
        ),
        "limits": {101: 2, 76: 1, 59: 1, 50: 3, 26: 15, 73: 2, 102: 2, 149: 7, 45: 25, 55: 11, 56: 5},
    },
    (3, 14): {
        "head": {"RESUME": 128, "COPY_FREE_VARS": 60, "MAKE_CELL": 97, "RETURN_GENERATOR": 34, "POP_TOP": 31},
    },
}
